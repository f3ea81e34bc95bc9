"""The peer that the edge replaces: a minimal Falcon app that returns X-Accel-Redirect, without any checks."""

from __future__ import annotations

import falcon


class Content:
    """/accel/{two}/{three}…: the object's key."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        resp.set_header("X-Accel-Redirect", f"/accel-objects/{key}")
        resp.content_type = "application/octet-stream"


app: falcon.App[falcon.Request, falcon.Response] = falcon.App()
app.add_route("/accel/{key:path}", Content())
