"""Find the wheels that a machine lacks: the requirements of expost, and theirs, without those already installed."""

from __future__ import annotations

import email
import importlib.metadata
import itertools
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

#: Installed versions by name; None for an unknown version, which is assumed to be recent enough.
Have = Mapping[str, Version | None]
#: Minor versions of glibc: 2.28, which nearly every machine has, is tried first, then newer ones.
CEILINGS = (28, 39)
#: Never in a bundle: it takes several GB, and must match the machine's driver.
TORCH = "torch"


class BundleError(Exception):
    """A bundle cannot be made; the message says why in one line."""


@dataclass(frozen=True)
class Target:
    """The machine that the wheels are for.

    Attributes:
        python: Its Python, as 3.12.
        machine: As `uname -m` has it.
    """

    python: str
    machine: str

    @classmethod
    def parse(cls, python: str, platform: str) -> Target:
        """Read `3.12` and `linux-x86_64`.

        Raises:
            BundleError: for anything but CPython 3 on Linux.
        """
        system, _, machine = platform.partition("-")
        if system != "linux" or not machine:
            raise BundleError(f"platform is {platform}; bundles are for linux-x86_64 or linux-aarch64")
        major, _, minor = python.partition(".")
        if major != "3" or not minor.isdigit():
            raise BundleError(f"python is {python}; give its version as 3.12")
        return cls(python, machine)

    def environment(self) -> dict[str, str]:
        """Return the environment in which markers of requirements are evaluated."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": self.machine,
            "platform_release": "",
            "platform_version": "",
        }

    def platforms(self, ceiling: int) -> list[str]:
        """Return the platform tags of wheels that run where glibc is 2.`ceiling`, newest first."""
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in range(ceiling, 4, -1)]
        return [*tags, *(f"{old}_{self.machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux"))]


@dataclass
class Needs:
    """The wheels of a bundle, and the reasons.

    Attributes:
        wheels: Wheels by name.
        why: Why each is in the bundle.
        left_out: Why others are not.
    """

    wheels: dict[str, Path] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def requirements(wheel: Path, target: Target, extras: Iterable[str] = ()) -> list[Requirement]:
    """Return the requirements of a wheel with some extras on a machine, without markers: those that hold are kept."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode("utf-8")
    found = []
    for line in email.message_from_string(text).get_all("Requires-Dist", []):
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        environments = [{**target.environment(), "extra": extra} for extra in (*extras, "")]
        if marker is None or any(map(marker.evaluate, environments)):
            found.append(requirement)
    return found


def of_extra(wheel: Path, target: Target, extra: str, names: Sequence[str] = ()) -> list[Requirement]:
    """Return the requirements that an extra of a wheel adds; with names, only these packages."""
    core = requirements(wheel, target)
    added = [each for each in requirements(wheel, target, [extra]) if each not in core]
    return [each for each in added if not names or canonicalize_name(each.name) in names]


def find_needs(
    roots: Sequence[tuple[Requirement, str]], target: Target, have: Have, fetch: Callable[[str, SpecifierSet], Path]
) -> Needs:
    """Return the wheels that a machine lacks.

    Args:
        roots: Requirements, each with the name of who requires it.
        target: The machine.
        have: Packages installed there; one that is too old for a requirement counts as lacking.
        fetch: Returns a wheel for a name and allowed versions.

    Raises:
        BundleError: if torch is lacking or too old, or two requirements exclude each other.
    """
    needs, queue, versions = Needs(), list(roots), dict[str, SpecifierSet]()
    while queue:
        requirement, by = queue.pop(0)
        name = canonicalize_name(requirement.name)
        if name.replace("-", "_") in sys.stdlib_module_names:
            needs.left_out[name] = f"{by} requires it, but Python has it"  # a backport would take its place
            continue
        versions[name] = versions.get(name, SpecifierSet()) & requirement.specifier
        there = name in have
        if there and name not in needs.wheels and _suits(versions[name], have[name]):
            needs.left_out[name] = f"{have[name] or 'it'} is there"
            continue
        if name == TORCH:
            found = f"{have[name]} is there" if there else "it is not there"
            raise BundleError(f"{by} requires {requirement}, and {found}; no bundle carries torch, install it there")
        if name in needs.wheels:
            if _suits(requirement.specifier, _version(needs.wheels[name])):
                continue
            needs.wheels.pop(name)
        needs.left_out.pop(name, None)
        wheel = fetch(name, versions[name])
        needs.wheels[name] = wheel
        needs.why[name] = f"{have[name]} is there, {by} requires {requirement.specifier}" if there else f"for {by}"
        queue += [(each, name) for each in requirements(wheel, target, requirement.extras)]
    return needs


def _suits(specifier: SpecifierSet, version: Version | None) -> bool:
    return version is None or specifier.contains(version, prereleases=True)


def _version(wheel: Path) -> Version:
    return parse_wheel_filename(wheel.name)[1]


def read_have(path: Path) -> dict[str, Version | None]:
    """Read what `pip list --format=freeze` wrote.

    Raises:
        BundleError: if it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {path}: {error}; write it by: pip list --format=freeze > {path}") from None
    found: dict[str, Version | None] = {}
    for line in map(str.strip, lines):
        if not line or line.startswith(("#", "-")):
            continue
        name, _, version = (line.replace(" @ ", "==", 1) if " @ " in line else line).partition("==")
        try:
            found[canonicalize_name(name.strip(), validate=True)] = Version(version.strip())
        except ValueError:  # a name without a version, or a file or address in its place
            found[canonicalize_name(name.strip())] = None
    return found


def torch_and_its_own() -> dict[str, Version | None]:
    """Return torch, NumPy and the requirements of torch, with unknown versions: every machine with torch has them."""
    found: dict[str, Version | None] = {"numpy": None}
    queue = [TORCH]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in found:
            continue
        found[name] = None
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        queue += [each.name for each in map(Requirement, lines) if "extra ==" not in str(each.marker or "")]
    return found


@dataclass(frozen=True)
class Pip:
    """Downloads wheels.

    Attributes:
        target: The machine that they are for.
        folder: Folder of the downloads.
        links: Folder of wheels to use instead of the index.
    """

    target: Target
    folder: Path
    links: Path | None = None

    def __call__(self, name: str, versions: SpecifierSet) -> Path:
        """Return a wheel of an allowed version of a package, for the oldest glibc possible.

        Raises:
            BundleError: if there is none.
        """
        said = ""
        # prefer the version installed here: it is the tested one
        tried = [f"=={here}"] if (here := _installed(name)) is not None and versions.contains(here) else []
        for wanted, ceiling in itertools.product((*tried, str(versions)), CEILINGS):
            place = self.folder / name
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--disable-pip-version-check", "--implementation", "cp", "--python-version", self.target.python]
            command += [word for tag in self.target.platforms(ceiling) for word in ("--platform", tag)]
            command += ["--no-index", "--find-links", str(self.links)] if self.links else []
            ended = subprocess.run(
                [*command, "--dest", str(place), f"{name}{wanted}"], capture_output=True, text=True, check=False
            )
            found = sorted(place.glob("*.whl"), key=lambda path: path.stat().st_mtime) if place.exists() else []
            if ended.returncode == 0 and found:
                return found[-1]
            lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR:")]
            said = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {ended.returncode}"
        raise BundleError(
            f"no wheel of {name}{versions} for Python {self.target.python} on {self.target.machine}: {said}"
        )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def build_wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of a checkout.

    Raises:
        BundleError: if it cannot be built.
    """
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    ended = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(root)], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        reason = (ended.stderr.strip().splitlines() or ["no wheel came out"])[-1]
        raise BundleError(f"cannot build the wheel of {root}: {reason}; build it, and pass it as --wheel")
    return wheels[-1]
