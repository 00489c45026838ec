"""The console asks for an API key, keeps it as the person chose, and hides what it may not do."""

import pytest
from playwright.async_api import expect

from tests.e2e.browser import needs_chromium
from tests.e2e.console.conftest import Console, create_key, sign_in

pytestmark = [
    pytest.mark.e2e,
    needs_chromium,
    pytest.mark.parametrize("auth", ["required"], indirect=True),
]

REVOKE_KEY = """
mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { errors { message } } }
"""


async def test_key_is_kept_only_if_the_person_asks_for_it(console: Console) -> None:
    page = console.page
    await page.reload()
    await page.get_by_label("API key").wait_for()
    assert await page.evaluate("[{...sessionStorage}, document.cookie]") == [{}, ""]

    await page.get_by_label("API key").fill(await create_key(console.up, "READER", "Rita"))
    await page.get_by_label("Keep me signed in").check()
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_text("Rita, Reader").wait_for()
    await page.reload()
    await page.get_by_text("Rita, Reader").wait_for()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_label("API key").wait_for()
    assert await page.evaluate("({...sessionStorage})") == {}


async def test_unknown_keys_and_evaluators_are_rejected(console: Console) -> None:
    await console.page.reload()
    await console.page.get_by_label("API key").fill("sgql_unknown")
    await console.page.get_by_role("button", name="Sign in").click()
    await expect(console.page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    await console.check_accessibility("sign-in")

    await console.page.get_by_label("API key").fill(
        await create_key(console.up, "EVALUATOR", "shop")
    )
    await console.page.get_by_role("button", name="Sign in").click()
    await console.page.get_by_text("This API key is for applications").wait_for()


async def test_revocation_of_the_own_key_signs_out(console: Console) -> None:
    await console.open("/keys")
    dialog = await console.open_dialog("Revoke Ada")
    await expect(dialog).to_contain_text("You will be signed out.")
    await dialog.get_by_role("button", name="Revoke the API key").click()
    await console.page.get_by_text("The API key Ada is revoked").wait_for()
    await console.page.get_by_label("API key").wait_for()


async def test_revoked_key_ends_the_session(console: Console) -> None:
    key_id = (await console.execute("{ viewer { keyId } }"))["viewer"]["keyId"]
    revoked = await console.execute(REVOKE_KEY, id=key_id)
    assert revoked == {"revokeApiKey": {"errors": []}}
    await console.page.wait_for_timeout(1500)  # the server rejects the key within a second
    await console.click("Users", "link")
    await console.page.get_by_text("The server no longer accepts the API key").wait_for()
    await console.page.get_by_label("API key").wait_for()


async def test_roles_hide_what_they_may_not_do(console: Console) -> None:
    page = console.page
    for role, sections in (
        ("READER", ["Segments", "Users", "Reports", "Activity", "GraphiQL"]),
        ("EDITOR", ["Segments", "Users", "Reports", "Activity", "GraphiQL"]),
        ("ADMIN", ["Segments", "Users", "Reports", "Activity", "API keys", "GraphiQL"]),
    ):
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(console, await create_key(console.up, role, role.lower()))
        links = page.get_by_role("navigation").get_by_role("link")
        assert await links.all_inner_texts() == sections
        is_editor = role != "READER"
        create = page.get_by_role("button", name="Create segment")
        await expect(create).to_have_count(1 if is_editor else 0)
        await console.open("/activity")
        await expect(page.get_by_role("tab", name="Audit log")).to_have_count(int(is_editor))
