"""Hooks of the site beyond MkDocs' plugins: formulas, pages from notebooks, pages of the API reference.

Formulas become MathML at build time, which browsers draw without scripts. A display that ends in `\\tag{n}` gets the
number (n) and the anchor `eq-n`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

#: Pages of the API reference: title, summary, modules in order (a package stands for the rest of its modules).
REFERENCE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "commands": (
        "Commands",
        "The commands as Python functions: `expost.train`, `expost.fit`, ...",
        ("commands.learning", "commands.showing", "commands.scoring", "commands", "run", "experiments"),
    ),
    "generators": (
        "Generators",
        "Encode, decode, fit, sample; for strings, tables and other people's models too.",
        ("generators", "estimators", "examples"),
    ),
    "models": (
        "Models",
        "The autoencoder, its slots, the zoo and the presets.",
        ("models", "config", "types", "networks"),
    ),
    "densities": (
        "Densities",
        "Densities of codes, and the likelihood of examples.",
        ("densities",),
    ),
    "scores": (
        "Scores",
        "Features, measures, and the protocol card of each score.",
        ("evaluation", "metrics"),
    ),
    "data": ("Data", "Images, tables and strings, by name or from disk.", ("data",)),
    "grammar": ("Grammars", "Context-free grammars, parsing, masked decoding.", ("grammar",)),
    "search": ("Search", "Bayesian optimization in latent space.", ("search",)),
    "sharing": (
        "Sharing",
        "The Hub, model cards, ONNX; the report and the explorer.",
        ("sharing", "report", "explorer"),
    ),
    "training": (
        "Training",
        "Training, checkpoints, batches, several processes.",
        ("training", "distributed"),
    ),
    "base": ("Everything else", "The command line, files, errors, registries.", ("errors", "registry", "utils", "cli")),
}
INTRODUCTION = """# API reference

Every module, from its docstrings. Most users need only the first two pages.

| page | content |
|---|---|
"""
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
#: The title of a block that the tests do not run; the reason follows.
NOT_RUN = re.compile(r'title="Not run in the tests: (\w)')
TAG = re.compile(r"\\tag\{(\w+)\}")
#: The name of a function, with the factor before it and the argument after it: a thin space separates them.
FUNCTION = re.compile(
    r"(</m(?:i|n|sub|sup|subsup|frac|row)>)?(<m[io][^>]*>(?:log|exp|sin|tanh|max|min|det|tr)</m[io]>)"
    r"(?=(<mo stretchy=\"false\">&#x00028;|<mrow><mo stretchy=\"true\"|</m)?)"
)
THIN = '<mspace width="0.167em" />'
PICTURES = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the API reference in the navigation."""
    pages = [{title: f"reference/{name}.md"} for name, (title, _, _) in REFERENCE.items()]
    for entry in config.nav or []:
        if "API reference" in entry:
            entry["API reference"] = ["reference/index.md", *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API reference, and a page for each notebook."""
    root = Path(config.config_file_path).parent
    for path, text in reference(root / "src" / "expost"):
        files.append(File.generated(config, path, content=text))
    for file in [each for each in files if each.src_uri.endswith(".ipynb")]:
        files.remove(file)
        for path, content in notebook(Path(str(file.abs_src_path)), file.src_uri):
            files.append(File.generated(config, path, content=content))
    return files


def on_pre_build(config: MkDocsConfig) -> None:
    """In the navigation, replace each notebook by its page."""
    config.nav = renamed(config.nav)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Title a block that the tests do not run by the reason alone, which is what a reader has to know."""
    return NOT_RUN.sub(lambda found: f'title="{found[1].upper()}', markdown)


def on_page_content(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML."""
    return FORMULA.sub(lambda found: formula(found[3], found[2] == "["), text)


def renamed(entry: Any) -> Any:
    """Return an entry of the navigation and its children, with `.md` in place of `.ipynb`."""
    if isinstance(entry, list):
        return [renamed(each) for each in entry]
    if isinstance(entry, dict):
        return {key: renamed(value) for key, value in entry.items()}
    return re.sub(r"\.ipynb$", ".md", entry) if isinstance(entry, str) else entry


def formula(source: str, display: bool) -> str:
    """Return MathML for LaTeX; a display with a tag gets its number beside it."""
    latex = html.unescape(source).strip()
    tag = TAG.search(latex)
    plain = TAG.sub("", latex).replace(r"\lVert", r"\|").replace(r"\rVert", r"\|")  # bars of one height
    made = convert(plain, display="block" if display else "inline")
    made = made.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    made = FUNCTION.sub(
        lambda found: (found[1] + THIN if found[1] else "") + found[2] + ("" if found[3] else THIN), made
    )
    if not display:
        return made
    number = f'<span class="number">({tag[1]})</span>' if tag else ""
    anchor = f' id="eq-{tag[1]}"' if tag else ""
    return f'<div class="equation"{anchor}><div class="formula">{made}</div>{number}</div>'


def reference(package: Path) -> Iterator[tuple[str, str]]:
    """Yield path and text of the pages of the API reference; modules that no page names go on the last."""
    modules = sorted(dotted(path, package) for path in package.rglob("*.py"))
    modules = [name for name in modules if name and not any(part.startswith("_") for part in name.split("."))]
    pages: dict[str, list[str]] = {name: [] for name in REFERENCE}
    for page, (_, _, prefixes) in REFERENCE.items():
        for prefix in prefixes:
            below = (name for name in modules if name == prefix or name.startswith(f"{prefix}."))
            pages[page] += [name for name in below if name not in pages[page]]
    taken = {name for names in pages.values() for name in names}
    pages["base"] += [name for name in modules if name not in taken]
    rows = (f"| [{title}]({name}.md) | {summary} |\n" for name, (title, summary, _) in REFERENCE.items())
    yield "reference/index.md", INTRODUCTION + "".join(rows)
    for name, (title, summary, _) in REFERENCE.items():
        directives = "".join(f"\n::: expost.{module}\n" for module in pages[name])
        yield f"reference/{name}.md", f"# {title}\n\n{summary}\n{directives}"


def dotted(path: Path, package: Path) -> str:
    """Return the dotted name of a module below the package; "" for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def notebook(path: Path, uri: str) -> Iterator[tuple[str, str | bytes]]:
    """Yield path and content of a notebook's page, of its pictures, and of the notebook itself."""
    import base64
    import json

    stem = uri.removesuffix(".ipynb")
    name = stem.rpartition("/")[2]
    lines: list[str] = []
    pictures = 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            lines.append(source)
            if source.startswith("# "):
                lines.append(f'<p class="source">A notebook: <a href="../{name}.ipynb" download>{name}.ipynb</a>.</p>')
            continue
        if cell["cell_type"] != "code" or not source:
            continue
        lines.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            kind = next((each for each in PICTURES if each in data), None)
            if kind is not None:
                pictures += 1
                file = f"{name}-{pictures}.{PICTURES[kind]}"
                content = "".join(data[kind])
                raw = content.encode() if kind == "image/svg+xml" else base64.b64decode(content)
                yield f"{stem.rpartition('/')[0]}/{file}", raw
                lines.append(f"![Output of the cell above]({file})")
            elif "text/html" in data:
                lines.append(f'<div class="output">{"".join(data["text/html"])}</div>')
            elif output.get("name") != "stderr":
                text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
                lines.append(f"```{{ .text .output }}\n{text}\n```")
    yield f"{stem}.md", "\n\n".join(lines) + "\n"
    yield f"{stem}.ipynb", path.read_bytes()
