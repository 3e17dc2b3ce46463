"""The page on troubles: every anchor that warnings and reports link to exists, and every symptom is named by some."""

import re
from pathlib import Path

from expost.errors import TROUBLESHOOTING, Symptom

ROOT = Path(__file__).resolve().parents[2]


def test_every_symptom_has_its_section_and_is_named_by_a_warning_or_the_report():
    page = ROOT / TROUBLESHOOTING.partition("/blob/main/")[2]
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {symptom.value for symptom in Symptom} <= anchors
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for symptom in Symptom:
        assert f"Symptom.{symptom.name}" in source, symptom


def test_the_address_is_that_of_the_repository():
    homepage = re.search(r'^Homepage = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert homepage is not None
    assert Symptom.COPIES.address == f"{homepage[1]}/blob/main/docs/howto/troubleshooting.md#samples-are-copies"
