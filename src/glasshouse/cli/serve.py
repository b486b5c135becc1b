"""`glasshouse serve`: a model behind the HTTP APIs of OpenAI and Anthropic."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel
    from glasshouse.server.proxy import Proxy
    from glasshouse.server.service import Service
    from glasshouse.server.settings import ServerSettings


def register(app: typer.Typer) -> None:
    app.command("serve", epilog="\b\nExample:\n  glasshouse serve runs/pocket --port 8000")(serve)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Run or model folder, or another server's model: http://host:port/v1#NAME.",
            show_default="the newest run",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own requires API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free one.", min=0, max=65535)] = 8000,
    name: Annotated[
        str | None,
        typer.Option(help="What clients call the model.", show_default="the name of its run or folder"),
    ] = None,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME=FOLDER",
            help="An adapter in PEFT's format, served as MODEL:NAME; may be repeated.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML with API keys and scopes.",
            show_default="$GLASSHOUSE_API_KEYS, or none",
        ),
    ] = None,
    upstream_key: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Environment variable that holds the key for the server that MODEL names.",
        ),
    ] = None,
    log_content: Annotated[bool, typer.Option(help="Log what is asked and answered, too.")] = False,
    traces: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="OpenTelemetry spans: console, otlp or a file.", show_default="none"
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any limit, such as request_timeout=60 or engine.queue_limit=32; may be repeated.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Serve a model over HTTP. Ctrl-C or SIGTERM lets running replies end first."""
    from glasshouse.core.config import apply_overrides
    from glasshouse.core.errors import UsageError
    from glasshouse.core.model_folders import resolve_model
    from glasshouse.server.keys import Keys, check_address
    from glasshouse.server.settings import ServerSettings

    given = {"host": host, "port": port, "log_content": log_content, "traces": traces}
    chosen = apply_overrides(given, changes or [])
    limits = chosen.pop("engine", {})
    settings = ServerSettings.parse(chosen, source="serve")
    known = Keys.load(keys)
    check_address(settings.host, known)
    if model is not None and model.startswith(("http://", "https://")):
        if adapters or limits:
            raise UsageError(
                "adapters and the engine's limits are a matter of the server that runs the model"
            )
        source = model.partition("#")[0]
        start: Callable[[], Service | Proxy] = partial(_proxy, model, name, upstream_key, settings)
    else:
        if upstream_key is not None:
            fix = "name one: http://host:port/v1#NAME"
            raise UsageError("--upstream-key is for another server's model", fix=fix)
        folder = resolve_model(model)
        source = str(folder)
        start = partial(_service, folder, name, settings, limits, adapters or [], device)

    from glasshouse.server.app import build
    from glasshouse.server.logs import RequestLog
    from glasshouse.server.process import Process, listen, run

    bound = listen(settings.host, settings.port)
    service = start()
    address = f"http://{_in_url(settings.host)}:{bound.getsockname()[1]}"
    log = RequestLog(settings.log_content)
    log.take_over()
    app = build(service, known, log)
    run(Process(app, service, lambda: _greet(service, source, address, bool(known))), bound)


def _proxy(model: str, name: str | None, variable: str | None, settings: ServerSettings) -> Proxy:
    """In front of http://host:port/v1#NAME. Raises UsageError that shows no key, wherever it was put."""
    from glasshouse.core.errors import UsageError
    from glasshouse.server.proxy import Proxy
    from glasshouse.server.upstream import Upstream

    key = None
    if variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise UsageError(
                "--upstream-key names no environment variable that is set",
                fix="put the key into a variable and give that one's name, never the key itself",
            )
    theirs = unquote(model.partition("#")[2]) or None
    if name is not None and theirs is None:
        raise UsageError("--name calls one model otherwise", fix="say which: http://host:port/v1#NAME")
    return Proxy(Upstream(model, key), theirs, name or theirs, settings)


def _service(
    folder: Path,
    name: str | None,
    settings: ServerSettings,
    limits: dict[str, Any],
    adapters: list[str],
    device: str,
) -> Service:
    """Our own engine."""
    from glasshouse.inference import LanguageModel
    from glasshouse.inference.engine import Engine, EngineSettings
    from glasshouse.server.service import Service

    loaded = LanguageModel.load(folder, device)
    _hang_on(loaded, adapters)
    engine = Engine(loaded, EngineSettings.parse(limits, source="engine"))
    return Service(engine, name or _name(folder), settings)


def _hang_on(model: LanguageModel, adapters: list[str]) -> None:
    """Load adapters beside the model; none is on unless a request names it."""
    from glasshouse.core.errors import UsageError
    from glasshouse.model.lora import use_adapters
    from glasshouse.model.peft_folder import load_adapter

    for text in adapters:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(f"cannot read the adapter '{text}'", fix="write it as --adapter NAME=FOLDER")
        load_adapter(model.model, folder, name=name)
    use_adapters(model.model)


def _name(folder: Path) -> str:
    """A run is called by its own name; its model lies in RUN/STAGE/model."""
    folder = folder.resolve()
    run = folder.parent.parent
    inside = folder.name == "model" and (run / "recipe.yaml").is_file()
    return run.name if inside else folder.stem if folder.suffix == ".gguf" else folder.name


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _greet(service: Service | Proxy, source: str, address: str, keyed: bool) -> None:
    """What one needs to know for a first request."""
    from glasshouse.server.service import Service

    if isinstance(service, Service):
        size = service.model.model.num_parameters()
        about = f"{source}, {size:,} parameters, {service.context} tokens of context"
    else:
        about = f"in front of {source}"
    key = " -H 'Authorization: Bearer YOUR_KEY'" if keyed else ""
    body = f'{{"model": "{service.name or "NAME"}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    print(f"{address} serves {', '.join(service.models) or 'every model'}: {about}")
    print(f"base URL for OpenAI's clients {address}/v1, for Anthropic's {address}; see {address}/docs")
    print(f"\ncurl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n  -d '{body}'")
    print("\nCtrl-C ends it.", flush=True)
