"""Templates: columns, constant text, braces and escapes, and where a column stands in the text."""

from __future__ import annotations

import pytest

from nnlib.core.errors import UsageError
from nnlib.data.importing.text.template import Template


def test_columns_and_constant_text() -> None:
    template = Template.parse(r"Q: {q}\n{{A}}: {a}{q}")
    assert template.columns == ("q", "a")
    values = {"q": "why?", "a": "so"}
    text = template.fill(values)
    assert text == "Q: why?\n{A}: sowhy?"
    assert [text[begin:end] for begin, end in template.spans(values, ["q"])] == ["why?", "why?"]


@pytest.mark.parametrize("text", ["no column", "{open", "close}", "{}", "a } b {c}"])
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(UsageError, match="--template"):
        Template.parse(text)
