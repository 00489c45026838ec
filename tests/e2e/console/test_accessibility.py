"""Each page and dialog works at both widths, in both color schemes, and by keyboard."""

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import expect

from tests.conftest import until
from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import WIDE, Console

pytestmark = [
    pytest.mark.e2e,
    needs_chromium,
    # With a key, the header has the name of the key.
    pytest.mark.parametrize("auth", ["required"], indirect=True),
]

SLUG = "AVITO_DISCOUNT_30"
LONG_SLUG = "AVITO_" + "LONG_" * 40

STORE_DATA = """
mutation ($longSlug: String!) {
  createSegment(input: {slug: $longSlug, name: "A long slug", rollout: {percent: 0.5}}) {
    errors { message }
  }
  setRollout(input: {
    slug: "AVITO_DISCOUNT_30"
    rollout: {stages: [{percent: 10}, {percent: 50, afterSeconds: 86400}]}
  }) { errors { message } }
  createImport(input: {
    slug: "AVITO_DISCOUNT_50", source: {segments: {anyOf: ["AVITO_DISCOUNT_30"]}}, dryRun: true
  }) { import { id } errors { message } }
  createExport(input: {slug: "AVITO_DISCOUNT_30"}) { errors { message } }
  updateUserSegments(input: {userId: "1", add: ["AVITO_DISCOUNT_30"]}) { errors { message } }
  createReport(input: {userId: "1", year: 2026, month: 10}) { errors { message } }
}
"""

PAGES = {
    "segments": "/segments",
    "overview": f"/segments/{SLUG}",
    "rollout": f"/segments/{SLUG}/rollout",
    "members": f"/segments/{SLUG}/members",
    "imports": "/segments/AVITO_DISCOUNT_50/imports",
    "import-form": f"/segments/{SLUG}/imports/new",
    "exports": f"/segments/{SLUG}/exports",
    "segment-history": f"/segments/{SLUG}/history",
    "segment-audit": f"/segments/{SLUG}/audit",
    "long-slug": f"/segments/{LONG_SLUG}",
    "unknown-segment": "/segments/NOPE",
    "users": "/users",
    "user": "/users/1",
    "unknown-user": "/users/987654321",
    "explanation": f"/users/1/explain/{SLUG}",
    "explanation-no": "/users/2/explain/NOPE",
    "reports": "/reports",
    "activity": "/activity",
    "audit": "/activity/audit",
    "keys": "/keys",
    "not-found": "/nowhere",
}

DIALOGS = {
    "create-segment": ("/segments", "Create segment"),
    "edit-segment": (f"/segments/{SLUG}", "Edit"),
    "delete-segment": (f"/segments/{SLUG}", "Delete"),
    "set-rollout": ("/segments/AVITO_VOICE_MESSAGES/rollout", "Set a rollout"),
    "withdraw-rollout": (f"/segments/{SLUG}/rollout", "Withdraw the rollout"),
    "add-users": (f"/segments/{SLUG}/members", "Add users"),
    "create-user": ("/users", "Create user"),
    "add-to-segments": ("/users/1", "Add to segments"),
    "remove-from-segment": ("/users/1", f"Remove the user from {SLUG}"),
    "delete-user": ("/users/1", "Delete"),
    "create-key": ("/keys", "Create API key"),
    "revoke-key": ("/keys", "Revoke Ada"),
}


async def test_pages_and_dialogs_have_no_barriers(console: Console) -> None:
    await store_data(console)
    assert [*await find_failures_of_pages(console), *await find_failures_of_dialogs(console)] == []


async def store_data(console: Console) -> None:
    """Store something that each page shows."""
    data = await console.execute(STORE_DATA, longSlug=LONG_SLUG)
    assert [payload["errors"] for payload in data.values() if payload["errors"]] == []


async def find_failures_of_pages(console: Console) -> list[str]:
    failures = []
    for name, path in PAGES.items():
        await console.open(path)
        failures += await find_failures(console, name)
    return failures


async def find_failures_of_dialogs(console: Console) -> list[str]:
    failures = []
    for name, (path, button) in DIALOGS.items():
        await console.open(path)
        await console.open_dialog(button)
        failures += await find_failures(console, f"dialog-{name}")
        await until(lambda: is_closed_by_escape(console))
    return failures


async def is_closed_by_escape(console: Console) -> bool:
    """Press Escape, which first closes the list of an input, and then the dialog."""
    await console.page.keyboard.press("Escape")
    await console.page.wait_for_timeout(300)
    return await console.page.get_by_role("dialog").count() == 0


async def find_failures(console: Console, name: str) -> list[str]:
    """Return what is wrong with the page, so that one run finds the faults of all pages."""
    await console.wait_until_loaded()
    try:
        await console.check_accessibility(name)
    except AssertionError as error:
        await console.page.set_viewport_size(WIDE)
        return [str(error)]
    return []


async def test_keyboard_creates_a_segment(console: Console) -> None:
    page = console.page
    await console.open("/segments")
    button = page.get_by_role("main").get_by_role("button", name="Create segment")
    await tab_to(console, lambda: is_focused(console, "Create segment"))
    await page.keyboard.press("Enter")
    slug = page.get_by_role("dialog").get_by_label("Slug")
    await expect(slug).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(button).to_be_focused()

    await page.keyboard.press("Enter")
    await expect(slug).to_be_focused()
    await page.keyboard.type("BY_KEYBOARD")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="BY_KEYBOARD", level=1).wait_for()


async def test_keyboard_rejects_and_confirms_a_revocation(console: Console) -> None:
    page = console.page
    created = await console.execute(
        'mutation { createApiKey(input: {name: "Old", role: READER}) { errors { message } } }'
    )
    assert created["createApiKey"]["errors"] == []
    await console.open("/keys")
    button = page.get_by_role("button", name="Revoke Old")
    await tab_to(console, lambda: is_focused(console, "Revoke Old"))
    for key in ("Escape", "Enter"):
        await page.keyboard.press("Enter")
        await page.get_by_role("dialog").wait_for()
        if key == "Enter":
            await tab_to(console, lambda: is_focused(console, "Cancel"))
        await page.keyboard.press(key)
        await page.get_by_role("dialog").wait_for(state="detached")
        await expect(button).to_be_focused()

    await page.keyboard.press("Enter")
    await page.get_by_role("dialog").wait_for()
    await tab_to(console, lambda: is_focused(console, "Revoke the API key"))
    await page.keyboard.press("Enter")
    await page.get_by_text("The API key Old is revoked").wait_for()
    await expect(button).to_have_count(0)


MAX_TABS = 60


async def tab_to(console: Console, is_reached: Callable[[], Awaitable[bool]]) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(MAX_TABS):
        if await is_reached():
            return
        await console.page.keyboard.press("Tab")
    raise AssertionError("Tab does not reach the element")


async def is_focused(console: Console, name: str) -> bool:
    """Return whether the focused element has a name."""
    return bool(
        await console.page.evaluate(
            "name => [document.activeElement.ariaLabel, document.activeElement.textContent.trim()]"
            ".includes(name)",
            name,
        )
    )
