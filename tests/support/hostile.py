"""Texts that would run something, or mean something else, where a program did not look at what it was given."""

from typing import Final

HOSTILE: Final = [
    "'; touch pwned; '", '"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "; touch pwned", "--help", "--upload-pack=touch pwned",
    "../../etc/passwd", "a..b", "HEAD@{1}", "main^", ":/x", "\x00", "\x1b[2J", "ä" * 300, "a" * 100_000, "x\ny: z", '"\ninjected: true',
    "{{ .Values }}", "${{ github.token }}", "a\nplan={}", "a\r\n::set-output name=plan::{}", "::set-output name=plan::{}",
    "##[set-output name=plan;]{}",
]  # fmt: skip
