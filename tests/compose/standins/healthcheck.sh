#!/bin/bash
# Succeeds if the server sends its greeting.
exec 3<>/dev/tcp/127.0.0.1/3306
head -c 5 <&3 >/dev/null
