"""Where a setting comes from, and what is said of one that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from retriever.errors import SettingsError
from retriever.search import DEFAULT_ALPHA
from retriever.settings import Settings, read_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "beleg.toml"


def refusal(**arguments: object) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(**arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_defaults(toml: Path) -> None:
    read = read_settings(file=toml, environment={})
    assert read.settings == Settings(data_dir=read.settings.data_dir)
    assert read.sources == {}
    assert read.unknown_variables == ()
    assert (read.settings.port, read.settings.offline, read.settings.index) == (8080, False, "embedded")


def test_the_nearer_place_wins(toml: Path) -> None:
    toml.write_text('port = 1\nalpha = 0.1\nhost = "toml"\nchunk_tokens = 100\n')
    environment = {"BELEG_PORT": "2", "BELEG_ALPHA": "0.2", "PORT": "9", "HOME": "x"}
    read = read_settings(file=toml, environment=environment, overrides={"port": 3, "host": None})
    assert (read.settings.port, read.settings.alpha, read.settings.host) == (3, 0.2, "toml")
    assert read.sources == {"port": "command line", "alpha": "BELEG_ALPHA", "host": str(toml), "chunk_tokens": str(toml)}
    assert read.unknown_variables == ()


def test_the_contract_s_variables(tmp_path: Path) -> None:
    environment = {
        "BELEG_DATA_DIR": str(tmp_path),
        "BELEG_HOST": "0.0.0.0",
        "BELEG_PORT": "0",
        "BELEG_OFFLINE": "true",
        "BELEG_INDEX": "embedded",
    }
    settings = read_settings(file=tmp_path / "none.toml", environment=environment).settings
    assert (settings.data_dir, settings.host, settings.port, settings.offline) == (tmp_path, "0.0.0.0", 0, True)


def test_the_file_that_a_variable_names(toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toml.write_text("port = 1")
    assert read_settings(environment={}).settings.port == 1
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    assert read_settings(environment={"BELEG_CONFIG": str(other)}).settings.port == 2
    assert "cannot be read" in refusal(environment={"BELEG_CONFIG": str(tmp_path / "none.toml")})


def test_an_unknown_name_is_refused_with_the_nearest_one(toml: Path) -> None:
    toml.write_text("chunk_token = 100\nxyzzy = 1\n[server]\nport = 1\n")
    assert refusal(file=toml, environment={}).splitlines() == [
        f"chunk_token ({toml}) is no setting. Did you mean chunk_tokens?",
        f"xyzzy ({toml}) is no setting.",
        f"server ({toml}) is no setting.",
    ]


def test_unknown_variables_are_listed(toml: Path) -> None:
    read = read_settings(file=toml, environment={"BELEG_PROT": "1", "BELEG_CHUNK": "2", "BELEGT": "x"})
    assert read.unknown_variables == ("BELEG_CHUNK", "BELEG_PROT")


@pytest.mark.parametrize("content", [b"port = = 1", b"port = 1\nport = 2", b"\xff\xfe", "name = 'ü'".encode("latin-1")])
def test_a_file_that_is_no_toml(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    assert refusal(file=toml, environment={}).startswith(f"{toml} is not valid TOML: ")


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    assert refusal(file=tmp_path, environment={}).startswith(f"{tmp_path} cannot be read: ")


def test_bad_values_are_named_with_their_source(toml: Path) -> None:
    toml.write_text('alpha = 2\nindex = "faiss"\n')
    environment = {"BELEG_PORT": "many", "BELEG_OFFLINE": "perhaps", "BELEG_LOAD_TIMEOUT_S": "nan"}
    lines = refusal(file=toml, environment=environment, overrides={"chunk_tokens": 3}).splitlines()
    assert {line.partition(": ")[0] for line in lines} == {
        f"alpha ({toml})",
        f"index ({toml})",
        "port (BELEG_PORT)",
        "offline (BELEG_OFFLINE)",
        "load_timeout_s (BELEG_LOAD_TIMEOUT_S)",
        "chunk_tokens (command line)",
    }


SECRETS = ["reader_api_key", "elasticsearch_password", "elasticsearch_api_key", "jobs_database"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_is_never_shown(toml: Path, name: str) -> None:
    read = read_settings(file=toml, environment={f"BELEG_{name.upper()}": "secret-1"})
    assert "secret-1" not in f"{read} {read.settings!r} {read.settings.model_dump_json()}"
    assert getattr(read.settings, name).get_secret_value() == "secret-1"
    toml.write_text(f"{name} = 4711")
    assert "4711" not in refusal(file=toml, environment={})


def test_all_secrets_are_kept_as_such() -> None:
    kept = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]
    assert sorted(kept) == sorted(SECRETS)
    assert [name for name in Settings.model_fields if name.endswith(("_key", "_password")) and name not in SECRETS] == []


class TestElasticsearch:
    def test_defaults(self) -> None:
        """An Elasticsearch on this machine, without a password, with quantised vectors ranked again by exact ones."""
        chosen = Settings()
        assert (chosen.elasticsearch_url, chosen.elasticsearch_index) == ("http://127.0.0.1:9200", "beleg")
        assert (chosen.elasticsearch_vectors, chosen.elasticsearch_exact) == ("int8_hnsw", False)
        assert (chosen.elasticsearch_candidates, chosen.elasticsearch_oversample) == (200, 2.0)
        assert (chosen.elasticsearch_shards, chosen.elasticsearch_replicas) == (1, 0)

    def test_all_of_them_from_the_environment(self, toml: Path) -> None:
        given = {
            "index": "elasticsearch",
            "elasticsearch_url": "https://one:9200,https://two:9200",
            "elasticsearch_index": "beleg-2_b",
            "elasticsearch_username": "beleg",
            "elasticsearch_password": "p",
            "elasticsearch_api_key": "k",
            "elasticsearch_ca": "/etc/ca.pem",
            "elasticsearch_timeout_s": 2.5,
            "elasticsearch_vectors": "bbq_hnsw",
            "elasticsearch_shards": 3,
            "elasticsearch_replicas": 2,
            "elasticsearch_exact": True,
            "elasticsearch_candidates": 10_000,
            "elasticsearch_oversample": 0.0,
        }
        assert {name for name in Settings.model_fields if name.startswith("elasticsearch")} == given.keys() - {"index"}
        environment = {f"BELEG_{name.upper()}": str(value) for name, value in given.items()}
        read = read_settings(file=toml, environment=environment)
        assert read.unknown_variables == ()
        for name, value in given.items():
            found = getattr(read.settings, name)
            assert (found.get_secret_value() if isinstance(found, SecretStr) else found) == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("index", "opensearch"),
            *(("elasticsearch_index", bad) for bad in ("", "Beleg", "-x", "_x", "a b", "a*", "a,b", "ä", "a/b", "a\n")),
            ("elasticsearch_vectors", "int2_hnsw"),
            ("elasticsearch_timeout_s", "0"),
            ("elasticsearch_shards", "0"),
            ("elasticsearch_replicas", "-1"),
            ("elasticsearch_candidates", "0"),
            ("elasticsearch_candidates", "10001"),
            ("elasticsearch_oversample", "-1"),
            ("elasticsearch_oversample", "11"),
            ("title_boost", "-0.1"),
            ("heading_boost", "nan"),
            ("rollback_days", "-1"),
        ],
    )
    def test_what_does_not_fit_is_named(self, toml: Path, name: str, value: str) -> None:
        variable = f"BELEG_{name.upper()}"
        assert refusal(file=toml, environment={variable: value}).startswith(f"{name} ({variable}): ")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []


def test_alpha_and_reranker_are_left_to_the_models(tmp_path: Path) -> None:
    assert (Settings().alpha, Settings().reranker) == (None, "")
    # The page of settings names the last resort; it stands in the code once.
    assert f"or {DEFAULT_ALPHA:g}." in str(Settings.model_fields["alpha"].description)
    toml = tmp_path / "beleg.toml"
    toml.write_text('alpha = 0\nreranker = "models/reranker"\n')
    settings = read_settings(file=toml, environment={}).settings
    assert (settings.alpha, settings.reranker) == (0, "models/reranker")


@pytest.mark.parametrize("value", ["", "none", "nan", "-0.1", "1.1"])
def test_an_alpha_that_is_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="alpha"):
        read_settings(file=tmp_path / "none.toml", environment={"BELEG_ALPHA": value})
