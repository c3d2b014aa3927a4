"""Swagger UI without a network: its files come from an installed package, not from a CDN."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

PACKAGE = "fastapi_swagger"  # its resources folder is a release of swagger-ui-dist
ASSETS = "/docs/assets"


def install(app: FastAPI) -> None:
    """Serve /docs and what it loads; ``app`` must have been made with ``docs_url=None``."""

    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=f"{app.title} API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
            swagger_ui_parameters={"displayRequestDuration": True, "tryItOutEnabled": True},
        )

    app.mount(ASSETS, StaticFiles(directory=_assets_folder()), name="docs-assets")
    app.add_api_route("/docs", docs, include_in_schema=False, response_class=HTMLResponse)


def _assets_folder() -> Path:
    """Where swagger-ui-bundle.js and swagger-ui.css are."""
    with as_file(files(PACKAGE) / "resources") as folder:
        return folder
