"""Recipes as files: what is wrong in one is said by name, and an unknown key suggests the right one. Knows no model."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from finetune.data.hub import is_hub_id
from finetune.recipe import AnyRecipe, Part, Recipe
from finetune.recipe_reader import ReaderRecipe
from retriever.errors import BelegError, SettingsError

__all__ = ["keys", "read_recipe", "shipped"]

_R = TypeVar("_R", bound=AnyRecipe)


def shipped() -> dict[str, str]:
    """Return the recipes that come with Beleg: by name, what each is for, which is its first line."""
    folder = files("finetune").joinpath("recipes")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {
        name.removesuffix(".yaml"): folder.joinpath(name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for name in found
    }


def read_recipe(
    name: str, overrides: Sequence[str] = (), *, defaults: Mapping[str, object] | None = None
) -> Recipe | ReaderRecipe:
    """Read a recipe, of the kind that its `task` says.

    Args:
        name: a file, or the name of a shipped recipe.
        overrides: `key=value` with dots in the key, such as `trainer.epochs=3`; values are YAML, and paths in them start at the
            working directory.
        defaults: values of keys at the top that neither recipe nor overrides name; those that the kind lacks do not count.

    Raises:
        BelegError: there is no such recipe, or it cannot be read.
        SettingsError: it is no YAML, a key is unknown, or a value does not fit; the message names all of them.
    """
    path = Path(name).expanduser()
    # A folder is none: in a checkout of Beleg there is one of the name of the first shipped recipe.
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text, folder, where = path.read_text(encoding="utf-8"), path.parent, str(path)
        except OSError as error:
            raise BelegError(f"{path} cannot be read: {error.strerror}.", way_out="Check the path.") from error
        except UnicodeDecodeError as error:
            raise BelegError(f"{path} is not UTF-8: {error}.", way_out="Save it as UTF-8.") from error
    elif name in shipped():
        shelf = files("finetune").joinpath("recipes", f"{name}.yaml")
        text, folder, where = shelf.read_text(encoding="utf-8"), Path(), f"the recipe {name}"
    else:
        near = difflib.get_close_matches(name, shipped(), n=1)
        raise BelegError(
            f"There is no recipe {name}.",
            way_out=f"Did you mean {near[0]}?" if near else f"Name a YAML file, or one of {', '.join(shipped())}.",
        )
    try:
        # A safe loader, which the linter cannot see.
        values = yaml.load(text, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {error}.", way_out="Mend it there.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{where} holds no keys.", way_out="See docs/train.md for what a recipe looks like.")
    typed = {name for override in overrides for name in _override(values, override)}
    kind: type[Recipe] | type[ReaderRecipe] = ReaderRecipe if values.get("task") == "reader" else Recipe
    values = {**{key: value for key, value in (defaults or {}).items() if key in kind.model_fields}, **values}
    try:
        read = kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, where, kind)) from error
    return _placed(read, folder, [name for name in _PATHS if name not in typed and hasattr(read.data, name)])


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own loader would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping that a node stands for."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _override(values: dict[str, Any], override: str) -> Sequence[str]:
    """Set a value, and return the names of paths below `data` that this sets."""
    key, equals, text = override.partition("=")
    if not key or not equals:
        raise SettingsError(f"--set {override} is not KEY=VALUE.", way_out="Such as --set trainer.epochs=3.")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {override}: the value is not valid YAML.", way_out="Put text in quotes.") from error
    *parents, last = key.split(".")
    place = values
    for at, parent in enumerate(parents, start=1):
        inner = place.get(parent)
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            above = ".".join(parents[:at])
            raise SettingsError(
                f"--set {override}: {above} is {json.dumps(inner, default=str)}, which has no keys.",
                way_out=f"Set {above} as a whole, such as --set {above}='{{{last}: {text}}}'.",
            )
        place = inner
    path = parents == ["data"] and last in _PATHS
    place[last] = value if not path or isinstance(value, list) else [value]
    return [last] if path else _PATHS if key == "data" else []


_PATHS = ("train", "dev", "test", "documents")


def _placed(recipe: _R, folder: Path, names: Sequence[str]) -> _R:
    """Return the recipe with these paths starting here instead of at its folder. What is no path, such as a hub id, stays."""

    def place(text: str) -> str:
        if text.startswith("~"):
            return text
        # What lies here by that name is another file, which nobody meant.
        found = (folder / text).exists() or Path(text).exists() or not is_hub_id(text)
        return str(folder / text) if found else text

    data = {name: tuple(place(text) for text in getattr(recipe.data, name)) for name in names}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def _explain(error: ValidationError, where: str, kind: type[AnyRecipe]) -> str:
    lines = []
    for problem in error.errors():
        # Which kind of value was tried in vain is pydantic's affair.
        place = [str(part) for part in problem["loc"] if part != "Split" and not str(part).startswith("literal[")]
        key = ".".join(place)
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], _keys(kind, place[:-1]), n=1)
            elsewhere = [name for name, *_ in keys(kind) if name.rpartition(".")[2] == place[-1]]
            guess = ".".join([*place[:-1], near[0]]) if near else elsewhere[0] if elsewhere else ""
            lines.append(f"{where}: {key} is no key." + (f" Did you mean {guess}?" if guess else ""))
        else:
            lines.append(f"{where}: {f'{key}: ' if key else ''}{problem['msg'].removeprefix('Value error, ')}.")
    return "\n".join(dict.fromkeys(lines))


def _parts(model: type[Part]) -> Mapping[str, type[Part]]:
    found = {}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Part):
                found[name] = kind
    return found


def _keys(model: type[Part], path: Sequence[str]) -> list[str]:
    for part in path:
        model = _parts(model).get(part, model)
    return list(model.model_fields)


def keys(model: type[Part], prefix: str = "") -> list[tuple[str, str, str]]:
    """Return every key with its default and what it does, those of parts with dots."""
    inner = _parts(model)
    found = []
    for name, field in model.model_fields.items():
        if name in inner:
            found += keys(inner[name], f"{prefix}{name}.")
        else:
            default = "none" if field.is_required() else f"`{json.dumps(field.get_default(), default=list)}`"
            found.append((f"{prefix}{name}", default, field.description or ""))
    return found
