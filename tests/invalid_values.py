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
