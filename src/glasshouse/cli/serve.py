"""`glasshouse serve`: a model behind the HTTP APIs of OpenAI and Anthropic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glasshouse.inference import LanguageModel
    from glasshouse.server.service import Service


def register(app: typer.Typer) -> None:
    app.command("serve", epilog="\b\nExample:\n  glasshouse serve runs/pocket --port 8000")(serve)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Run or model folder.", show_default="the newest run"),
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
    from glasshouse.core.model_folders import resolve_model
    from glasshouse.server.keys import Keys, check_address
    from glasshouse.server.settings import ServerSettings

    given = {"host": host, "port": port, "log_content": log_content, "traces": traces}
    chosen = apply_overrides(given, changes or [])
    limits = chosen.pop("engine", {})
    settings = ServerSettings.parse(chosen, source="serve")
    known = Keys.load(keys)
    check_address(settings.host, known)
    folder = resolve_model(model)

    from glasshouse.inference import LanguageModel
    from glasshouse.inference.engine import Engine, EngineSettings
    from glasshouse.server.app import build
    from glasshouse.server.logs import RequestLog
    from glasshouse.server.process import Process, listen, run
    from glasshouse.server.service import Service

    bound = listen(settings.host, settings.port)
    loaded = LanguageModel.load(folder, device)
    _hang_on(loaded, adapters or [])
    engine = Engine(loaded, EngineSettings.parse(limits, source="engine"))
    service = Service(engine, name or _name(folder), settings)
    address = f"http://{_in_url(settings.host)}:{bound.getsockname()[1]}"
    log = RequestLog(settings.log_content)
    log.take_over()
    app = build(service, known, log)
    run(Process(app, service, lambda: _greet(service, folder, address, bool(known))), bound)


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


def _greet(service: Service, folder: Path, address: str, keyed: bool) -> None:
    """What one needs to know for a first request."""
    size = service.model.model.num_parameters()
    key = " -H 'Authorization: Bearer YOUR_KEY'" if keyed else ""
    body = f'{{"model": "{service.name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    about = f"{folder}, {size:,} parameters, {service.context} tokens of context"
    print(f"{address} serves {', '.join(service.models)}: {about}")
    print(f"base URL for OpenAI's clients {address}/v1, for Anthropic's {address}; see {address}/docs")
    print(f"\ncurl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n  -d '{body}'")
    print("\nCtrl-C ends it.", flush=True)
