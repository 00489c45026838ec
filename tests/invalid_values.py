"""Invalid and valid argument values."""

BAD_USER_IDS = (
    "0",
    "-1",
    "+1",
    "01",
    "abc",
    "",
    " 1",
    "1 ",
    "1\n",
    "1.5",
    "1e3",
    "0x1",
    "1_000",
    "\N{FULLWIDTH DIGIT ONE}",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "1\0",
    "9223372036854775808",
    "1" * 5000,
)

BAD_USER_KEYS = (
    "",
    "a" * 256,
    "\N{GRINNING FACE}" * 256,
    "a\nb",
    "\t",
    "a\0",
    "\x1f",
    "\x7f",
    "\x80",
    "a\N{NEXT LINE}",
    "\x9f",
)

GOOD_USER_KEYS = (
    "a",
    " ",
    "7",
    "a" * 255,
    "\N{GRINNING FACE}" * 255,
    "'; DROP TABLE users; --",
    'a "quoted", key',
    "\\",
    "%_",
    "NULL",
    "\xa0",
    "\N{LINE SEPARATOR}",  # not a control character: its category is Zl
    "alice@example.com",
    "5f0c3c1e-6b7a-4c55-9f0e-0d9b2a6f1c11",
)
"""Keys that differ from each other."""

BAD_SLUGS = (
    "",
    " ",
    "A B",
    "A ",
    " A",
    "A\n",
    "A\t",
    "A\x07",
    "A\x7f",
    "A\0",
    "-A",
    "_A",
    ".A",
    "A/B",
    "A%",
    "A" * 256,
    "\N{CYRILLIC CAPITAL LETTER A}",
    "A\N{COMBINING DIAERESIS}",
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}",
    "A\N{ZERO WIDTH SPACE}",
    "A\N{NON-BREAKING HYPHEN}B",
    "A\N{FULLWIDTH DIGIT ONE}",
)

GOOD_SLUGS = ("A", "z", "0", "A" * 255, "a.b-c_D", "9--", "A..")
