"""The version, of the SDK and of the command."""

VERSION = "0.2.0"
