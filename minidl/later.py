"""Names that a module takes from files beside it when they are first asked for (PEP 562)."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn


def later(name: str, **files: str) -> tuple[Callable[[str], Any], list[str]]:
    """The `__getattr__` of the module called `name`, and all names that it knows.

    Each keyword is a file of the module's package, with the names to be taken from it.
    """
    module = sys.modules[name]
    home = {word: file for file, words in files.items() for word in words.split()}

    def load(word: str) -> Any:
        if word in files and name == module.__package__:
            return import_module(f".{word}", name)
        if word not in home:
            raise AttributeError(f"module {name!r} has no attribute {word!r}", name=word)
        found = getattr(import_module(f".{home[word]}", module.__package__), word)
        setattr(module, word, found)
        return found

    return load, sorted(home)


def unknown(name: str, word: str, known: Sequence[str], elsewhere: Mapping[str, str]) -> NoReturn:
    """AttributeError: module `name` has no `word`, but its like, or what others call so."""
    folded = {own.lower(): own for own in known}
    near = difflib.get_close_matches(word.lower(), folded, 1, 0.7)
    guess = elsewhere.get(word) or (folded[near[0]] if near else "")
    short = name.rpartition(".")[2]
    hint = f"; did you mean {short}.{guess}?" if guess else f"; it has {', '.join(sorted(known))}"
    raise AttributeError(f"{name} has no {word!r}{hint}", name=word)
