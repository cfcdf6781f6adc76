"""The commands that README, docs, the headers of files and the docstrings of commands show."""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[1]
MARKDOWN = ("README.md", "CONTRIBUTING.md", "saved_models/README.md", "docs/**/*.md")
HEADED = ("pipelines/recipes/*.yaml", "tuning/spaces/*.yaml")
MODULES = ("keras_zoo/__main__.py", "pipelines/*.py", "tuning/*.py")

# Code in no named language is a command if it begins with one of these, or sets a variable.
PROGRAMS = (
    *("python", "pip", "make", "curl", "echo", "export", "source", "cd", "mkdir", "git", ".ci/run"),
    *("docker", "kubectl", "sbatch", "srun", "serve", "tensorboard", "saved_model_cli", "mkdocs"),
)
# And else one of these, by how they begin.
ILLUSTRATIONS = ("data preparation -> model creation", "keras_zoo/      what the networks are")
SHELL, NO_COMMANDS = ("sh", "bash", "shell", "console"), ("text",)


class Command(NamedTuple):
    """A command as its page has it.

    Args:
        page: the file, from the repository on.
        language: `shell`, `python` or `yaml`.
        text: the command, a program or a manifest.
    """

    page: str
    language: str
    text: str


@functools.cache
def documented() -> tuple[Command, ...]:
    """Every command, once a page, in the page's order."""
    found = []
    for patterns, commands_of in (
        (MARKDOWN, _in_markdown),
        (HEADED, _in_header),
        (MODULES, _in_docstring),
    ):
        for pattern in patterns:
            for file in sorted(REPOSITORY.glob(pattern)):
                found += commands_of(str(file.relative_to(REPOSITORY)), file.read_text())
    return tuple(dict.fromkeys(found))


def _in_header(page: str, text: str) -> Iterator[Command]:
    for command in re.findall(r"(?m)^#.*?(python -m .*)$", text):
        yield Command(page, "shell", command)


def _in_docstring(page: str, text: str) -> Iterator[Command]:
    yield from _in_markdown(page, ast.get_docstring(ast.parse(text)) or "")


def _in_markdown(page: str, text: str) -> Iterator[Command]:
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            language = token.info.partition(" ")[0]
            yield from _in_block(page, language, token.content)
        for part in token.children or ():
            # Alone, the name of a program is no command.
            program, _, arguments = part.content.partition(" ")
            if part.type == "code_inline" and program in PROGRAMS and arguments:
                yield Command(page, "shell", part.content)


def _in_block(page: str, language: str, content: str) -> Iterator[Command]:
    if language in SHELL:
        for command in _shell_commands(content):
            yield Command(page, "shell", command)
    elif language in ("python", "yaml"):
        yield Command(page, language, content)
    elif language not in NO_COMMANDS:
        # What a command prints may stand under it, after an empty line.
        for part in re.split(r"\n{2,}", content.rstrip("\n")):
            begins = re.match(r"([A-Z_]+=)?\S*", part)
            if begins[1] or begins[0] in PROGRAMS:
                yield from _in_block(page, "sh", f"{part}\n")
            else:
                assert part.startswith(ILLUSTRATIONS), f"{page}: is this a command?\n{part}"


def _shell_commands(content: str) -> Iterator[str]:
    """Its lines, joined where bash joins them or reads on; without comments."""
    command = ""
    for line in content.splitlines(keepends=True):
        if command or not re.match(r"\s*(#|$)", line):
            command += line
            if not command.endswith("\\\n") and _complete(command):
                yield re.sub(r"\s+# .*", "", re.sub(r"\\\n\s*", "", command)).strip()
                command = ""
    assert not command, f"bash cannot read {command}"


def _complete(command: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", command], capture_output=True).returncode == 0
