// Drives the operators' page in a browser. Prints a line [name, whether it is so, what was found] for each thing that is checked.
// Its argument is an object: url, tokens by role, secret (of tokens), chromium, sink (a webhook endpoint), psql (connection string).
const { chromium } = require("playwright-core");
const { execFileSync } = require("child_process");
const { createHmac } = require("crypto");
const { isDeepStrictEqual } = require("util");
const o = JSON.parse(process.argv[2]);

const sql = (text) => execFileSync("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", text, o.psql], { encoding: "utf8" }).trim();
const encoded = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
const signed = (claims) => { const text = encoded({ alg: "HS256", typ: "JWT" }) + "." + encoded(claims); return text + "." + createHmac("sha256", o.secret).update(text).digest("base64url"); };
const say = (name, good, got) => console.log(JSON.stringify([name, Boolean(good), got === undefined ? null : got]));
const is = (got, wanted, name) => say(name, isDeepStrictEqual(got, wanted), got);
const like = (got, pattern, name) => say(name, pattern.test(got), got);

let browser, page;
const requests = [], complaints = [];
let underWay = 0;

async function open(options) {
	const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
	const made = await context.newPage();
	made.setDefaultTimeout(20000);
	made.on("request", (r) => { requests.push(r); underWay++; });
	for (const end of ["requestfinished", "requestfailed"]) made.on(end, () => underWay--);
	made.on("pageerror", (e) => complaints.push(e.message));
	made.on("console", (m) => { if (m.type() === "error" && !/Failed to load resource/.test(m.text())) complaints.push(m.text()); });
	await made.goto(o.url);
	await made.waitForSelector("#token:visible");
	return made;
}
async function signIn(token) {
	await page.fill("#token", token);
	await page.press("#token", "Enter");
}
// go(ADDRESS): a section, once it has asked the server
async function go(address) {
	const asked = page.waitForResponse((r) => /msg_workers/.test(r.url()));
	await page.evaluate((hash) => { location.hash = hash; }, "#/" + address);
	await asked;
}
const text = (selector) => page.textContent(selector);
// becomes(SELECTOR, PATTERN, NAME): its text comes to fit
async function becomes(selector, pattern, name) {
	try {
		await page.waitForFunction(([s, source]) => new RegExp(source, "s").test(document.querySelector(s)?.textContent ?? "(absent)"), [selector, pattern.source]);
		say(name, true);
	} catch {
		say(name, false, await page.evaluate((s) => document.querySelector(s)?.textContent ?? null, selector));
	}
}
const press = (name, scope = "#section") => page.locator(scope).getByRole("button", { name, exact: true }).click();
const ids = () => page.$$eval("#section tbody tr:not(.empty) td:first-child", (cells) => cells.map((c) => Number(c.textContent)));
async function settle(wanted, name) {
	await page.waitForFunction((n) => document.querySelectorAll("#section tbody tr:not(.empty)").length === n, wanted).catch(() => {});
	is((await ids()).length, wanted, name);
}

async function signingIn() {
	await signIn("not.a.token");
	await becomes("#refusal", /^Signed out: .+/, "a wrong token is refused, with the reason");
	is(await page.evaluate(() => [document.activeElement.id, sessionStorage.getItem("token")]), ["token", null], "the field has the focus, and nothing is kept");
	await signIn(o.tokens.producer);
	await becomes("#refusal", /may not look/, "a role without rights is told so");
	await signIn(o.tokens.operator);
	await page.waitForSelector("#section h2");
	await becomes("#who", /^operator$/, "signed in");
	is(await page.evaluate(() => document.activeElement.textContent), "Overview", "the heading has the focus");
	is(await page.evaluate(() => [Object.keys(localStorage), document.cookie]), [[], ""], "the token is in this tab's storage alone, and there is no cookie");
}

async function overview() {
	await becomes("#tile-waiting", /^3$/, "what waits is counted");
	await becomes("#tile-scheduled", /^1$/, "and what is scheduled");
	await becomes("#tile-dead", /^4$/, "and what died");
	sql("SELECT msg_create(to_jsonb(g), 'quick') FROM generate_series(1, 20) g");
	await becomes("#tile-latency-webhook", /^[\d.]+ ms \/ [\d.]+ ms$/, "webhook calls have quantiles");
	await becomes("#tile-delivered", /[1-9].*\/s/, "and a rate");
	if (await page.evaluate(() => Boolean(window.uPlot))) {
		await page.waitForFunction(() => document.querySelectorAll(".charts canvas").length === 4);
		is(await page.$$eval(".charts figcaption", (c) => c.map((e) => e.textContent)), ["Messages a second", "Backlog", "Latency over 10 s", "Failures a second"], "four charts");
		like(await text(".charts figure:nth-child(2) p"), /waiting/, "which say in words what they show");
	}
	await becomes("#section", /webhook.*idle/, "workers are listed");
}

async function banner() {
	sql("ALTER ROLE mover NOLOGIN; SELECT pg_terminate_backend(pid) FROM msg_workers WHERE stage = 'webhook'");
	await becomes("#banner", /No webhook worker runs.*no webhook is called/, "the banner says that no worker runs");
	sql("ALTER ROLE mover LOGIN");
	await becomes("#banner", /^(?!.*No webhook worker)/, "and no longer once one does");
	sql("INSERT INTO msg_breakers (channel, worker, state, since, until, calls, failures, trips) VALUES ('shop', 99, 'open', now(), now() + interval '1 h', 20, 19, 1)");
	await becomes("#banner", /Circuit breaker of shop is open.*19 of 20/, "it says that a breaker is open");
	sql("DELETE FROM msg_breakers WHERE worker = 99; SELECT msg_webhook_enable('shop', false, '410 gone')");
	await becomes("#banner", /Webhook of shop is disabled.*410 gone/, "or a webhook disabled");
	is(await page.getAttribute("#banner", "aria-live"), "assertive", "aloud");
	await go("channels");
	await press("Enable shop");
	await press("Enable", "dialog");
	await becomes("#notice", /enabled/, "which can be enabled");
	is(sql("SELECT disabled_at IS NULL FROM msg_webhooks WHERE channel = 'shop'"), "t", "and is");
}

async function channels() {
	await go("channels");
	await press("Pause shop");
	await page.keyboard.press("Escape");
	is([await page.evaluate(() => document.activeElement.getAttribute("aria-label")), sql("SELECT count(*) FROM msg_pauses WHERE channel = 'shop'")], ["Pause shop", "0"], "Escape does nothing, and gives the focus back");
	await press("Pause shop");
	await page.fill("dialog [name=reason]", "<b>stocktaking</b>");
	await press("Pause", "dialog");
	await becomes("#banner", /Channel shop is paused.*<b>stocktaking<\/b>/, "a channel is paused, which the banner says");
	is(sql("SELECT reason FROM msg_pauses WHERE channel = 'shop'"), "<b>stocktaking</b>", "and so it is");
	await press("Resume shop");
	await becomes("#notice", /shop goes on/, "and resumed");
	await press("Pause everything");
	await press("Pause", "dialog");
	await becomes("#banner", /Everything is paused/, "everything is paused");
	await press("Resume everything");
	await becomes("#notice", /Everything goes on/, "and resumed");
	await press("Test calls");
	await page.fill("dialog [name=payload]", "{");
	await press("Call", "dialog");
	await becomes("#notice", /the payload is not JSON/, "a test call wants JSON");
	await press("Test calls");
	await press("Call", "dialog");
	await becomes("#test-result", /✓ delivered, 200/, "a test call shows what came of it");
	like(await text("dialog pre"), /POST http.*called[^]*webhook-id/, "and what was sent");
	await press("Close", "dialog");
	await press("Limits of shop");
	await page.fill("dialog [name=max_attempts]", "7");
	await page.fill("dialog [name=rate]", "500");
	await press("Set", "dialog");
	await becomes("#notice", /limits of shop are set/, "limits are set");
	is(sql("SELECT max_attempts, rate, concurrency FROM msg_channels JOIN msg_webhooks USING (channel) WHERE channel = 'shop'"), "7|500|64", "and are so, the others as they were");
}

async function messages() {
	sql("INSERT INTO messages (channel, payload, message_key) SELECT 'held', jsonb_build_object('n', g, 'even', g % 2 = 0), 'k' || g FROM generate_series(1, 120) g");
	await go("messages?channel=held&status=idle");
	await settle(50, "a page of messages");
	const first = await ids();
	is(first, [...first].sort((a, b) => b - a), "the newest first");
	await page.getByRole("link", { name: "Older" }).click();
	await page.waitForFunction((id) => Number(document.querySelector("#section tbody td")?.textContent) < id, first[49]);
	is((await ids())[0], first[49] - 1, "the page after it goes on where it ended");
	like(page.url(), /channel=held.*before=\d+/, "the address says all of it");
	await page.reload();
	await settle(50, "and is enough to come back");
	await page.getByRole("link", { name: "Newer" }).click();
	await page.waitForFunction((id) => Number(document.querySelector("#section tbody td")?.textContent) === id, first[0]).catch(() => {});
	is(await ids(), first, "and back again");
	await page.goBack();
	await page.waitForFunction((id) => Number(document.querySelector("#section tbody td")?.textContent) === id, first[49] - 1);
	say("as the browser's own button does", true);
	await page.fill("[name=payload]", "{even");
	await press("Filter");
	is(await page.$eval("[name=payload]", (e) => e.validationMessage), "This is not JSON.", "a payload that is not JSON is not searched for");
	await page.fill("[name=payload]", '{"even": true}');
	await page.fill("[name=key]", "k88");
	await press("Filter");
	await settle(1, "payloads are searched by what they contain");
	await page.fill("[name=key]", "k87");
	await press("Filter");
	await settle(0, "all filters count");
	await page.fill("[name=key]", "");
	await press("Filter");
	await settle(50, "without the key there are more");
	await press("Count");
	await becomes("#notice", /60 messages match/, "which are counted when asked");
	await press("Cancel all that match…");
	await becomes("dialog", /Cancel 60 messages\?/, "cancelling asks, with the count");
	await press("No, go back", "dialog");
	is(sql("SELECT count(*) FROM messages WHERE status = 'cancelled'"), "0", "No is no");
	await press("Cancel all that match…");
	await press("Cancel 60 messages", "dialog");
	await becomes("#notice", /^Cancelled 60\./, "Yes is yes");
	is(sql("SELECT count(*), count(*) FILTER (WHERE payload @> '{\"even\": true}') FROM messages WHERE status = 'cancelled'"), "60|60", "for those that match, and no other");
	await go("messages?status=dead&channel=shop");
	await settle(4, "dead messages");
	sql("SELECT msg_pause('shop')");
	await press("Retry all that match…");
	await press("Retry 4 messages", "dialog");
	await becomes("#notice", /^Retried 4\./, "are retried");
	is(sql("SELECT count(*) FROM messages WHERE channel = 'shop' AND status = 'retry' AND attempts = 0"), "4", "with all their attempts");
	sql("SELECT msg_resume('shop')");
	await page.waitForFunction(() => document.querySelectorAll("#section tbody tr:not(.empty)").length === 4);
	say("the list follows as they die again", true);
	await go("messages?error=nothing*like%20it");
	await settle(0, "errors are searched");
}

async function message() {
	const id = sql("SELECT id FROM messages WHERE payload ? 'html'");
	await go("message/" + id);
	await becomes("#section pre", /"html": "<script>hacked = true<\/script>/, "a payload with markup is text");
	await becomes("#section", /<img src=x onerror=hacked=true>/, "as an event type is");
	like(await text("#section pre"), /12345678901234567890123/, "large numbers are as they are");
	is(await page.evaluate(() => [document.querySelectorAll("#section script, #section img").length, typeof window.hacked]), [0, "undefined"], "nothing of it is run, or an element");
	await becomes(".timeline", /created.*attempt 1 failed: status 404, took.*later/, "the timeline has attempts and times between");
	await becomes("#section", /x-tenantt1/, "headers are shown");
	for (const [name, run] of [["SQL", (command) => sql(command)],
		["curl", (command) => execFileSync("bash", ["-c", command.replace("curl ", "curl -sS ")], { env: { ...process.env, TOKEN: o.tokens.operator }, encoding: "utf8" })]]) {
		await press("Copy as " + name);
		await becomes("#notice", new RegExp("copied"), name + " is copied");
		const made = run(await page.evaluate(() => navigator.clipboard.readText()));
		is(sql("SELECT a.id <> b.id AND (a.payload, a.channel, a.message_key, a.event_type, a.headers) IS NOT DISTINCT FROM (b.payload, b.channel, b.message_key, b.event_type, b.headers) FROM messages a, messages b WHERE a.id = " + id + " AND b.id = " + Number(made)), "t", name + " makes the same message");
	}
	sql("SELECT msg_pause('shop')");
	await press("Retry");
	await becomes("#message-head", /retry/, "a dead message is retried");
	await press("Cancel…");
	await press("Cancel the message", "dialog");
	await becomes("#message-head", /cancelled/, "and cancelled");
	is(sql("SELECT status FROM messages WHERE id = " + id), "cancelled", "it is");
	sql("SELECT msg_resume('shop')");
	const bytes = sql("SELECT msg_create_raw('\\x68656c6c6f', 'held')");
	await go("message/" + bytes);
	await becomes("#section pre", /\(5 bytes\)\nhello/, "bytes are shown");
	await go("message/999999");
	await becomes("#section", /There is no message 999999/, "a message that is not there");
	await go("constructor/%");
	await becomes("#section h2", /^Overview$/, "an address that leads nowhere leads to the overview");
	await go("message/1;2");
	await becomes("#section .bad", /is not an id/, "what is no id");
}

async function failures() {
	sql("UPDATE messages SET last_error = 'order ' || id || ' is 100% wrong_' || id WHERE id IN (SELECT id FROM messages WHERE status = 'dead' AND channel = 'shop' ORDER BY id LIMIT 2)");
	await go("failures");
	await becomes("#section tbody", /order … is …% wrong_…shop2/, "errors that differ in numbers are one group");
	await becomes("#section tbody", /status 404shop/, "a status code makes a group of its own");
	sql("SELECT msg_pause('shop')");
	await page.locator("#section tbody tr", { hasText: "wrong" }).getByRole("button").click();
	await press("Retry 2 messages", "dialog");
	await becomes("#notice", /^Retried 2\./, "a group is retried");
	is(sql("SELECT count(*) FROM messages WHERE status = 'retry' AND last_error LIKE 'order %'"), "2", "and nothing else");
	sql("SELECT msg_resume('shop')");
}

// These two come with other parts of the extension: here their tables are answered for.
async function runsAndMailings() {
	const absent = (route) => route.fulfill({ status: 404, contentType: "application/json", body: JSON.stringify({ code: "PGRST205", message: "Could not find the table", details: null, hint: null }) });
	const answer = (rows) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(rows) });
	await page.route(/\/msg_(runs|paces|mailings)\b/, absent);
	await go("runs");
	await becomes("#section", /not in this installation/, "runs that are not there");
	await go("mailings");
	await becomes("#section", /not in this installation/, "mailings that are not there");
	await page.unrouteAll();
	const at = "2026-01-01T10:00:00+00:00", later = "2026-01-01T10:00:01.5+00:00";
	await page.route(/\/msg_paces\b/, answer([{ channel: "shop", batch: 2, every: "00:02:00", next_at: later }]));
	await page.route(/\/msg_runs\b/, answer([{ id: 7, channel: "shop", due_at: at, started_at: at, finished_at: later, claimed: 2, succeeded: 1, failed: 1, first_id: 1, last_id: 2, error: "status 500" }]));
	await go("runs");
	await becomes("#section", /shop22 min.*7shop.*1.5 s21⚠ 1status 500/, "runs and paces");
	const mailing = { id: 5, text: "Hello {name}", channel: "shop", operator_codes: null, tags: ["vip"], starts_at: at, ends_at: later, window_from: "09:00:00", window_to: "18:00:00", status: "running", left_out: 1 };
	const stats = { mailing_id: 5, state: "running", clients: 200, left_out: 1, scheduled: 40, idle: 10, retry: 0, sent: 0, received: 0, delivered: 140, dead: 10, cancelled: 0, expired: 0, purged: 0 };
	let made = null, cancelled = null;
	await page.route(/\/msg_mailings\b/, answer([mailing]));
	await page.route(/\/rpc\/msg_mailing_stats\b/, answer([stats]));
	await page.route(/\/rpc\/msg_mailing_create\b/, (route) => { made = route.request().postDataJSON(); return answer(5)(route); });
	await page.route(/\/rpc\/msg_mailing_cancel\b/, (route) => { cancelled = route.request().postDataJSON(); return answer(true)(route); });
	await go("mailings");
	await becomes("#section tbody", /5runningHello {name}shop.*tags vip; 09:00 to 18:00/, "mailings");
	await page.click("summary");
	await page.fill("[name=text]", "Hello {name}");
	await page.fill("[name=ends_at]", "2030-01-01T10:00");
	await page.fill("[name=tags]", "vip, new");
	await page.fill("[name=window_from]", "09:00");
	await page.fill("[name=window_to]", "18:00");
	await press("Create the mailing");
	await becomes("#section h2", /^Mailing 5$/, "a mailing is created, and shown");
	is(made, { text: "Hello {name}", ends_at: new Date("2030-01-01T10:00").toISOString(), starts_at: null, channel: "default", operator_codes: [], tags: ["vip", "new"], window_from: "09:00", window_to: "18:00" }, "as it was filled in");
	await becomes("#section", /150 of 200 messages have left or ended \(75 %\); 1 clients were left out/, "its progress");
	is(await page.$eval("progress", (e) => e.value), 0.75, "as a bar");
	await becomes("#section tbody", /scheduled4020.0 %.*delivered14070.0 %/, "its statistics");
	await press("Cancel…");
	await press("Cancel the mailing", "dialog");
	await becomes("#notice", /The mailing is cancelled/, "it is cancelled");
	is(cancelled, { id: "5" }, "that one");
	await page.unrouteAll();
}

async function looks() {
	await go("overview");
	await page.evaluate(() => document.activeElement.blur());
	const heading = page.locator("#section h2");
	await page.getByRole("link", { name: "Failures", exact: true }).click();
	await page.waitForFunction(() => document.activeElement?.textContent === "Failures" && document.activeElement.tagName === "H2");
	is([await heading.textContent(), await page.title()], ["Failures", "Failures – msgsys"], "a new section has the focus, and the window's title");
	const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
	await page.selectOption("#theme", "dark");
	const dark = await ground();
	await page.selectOption("#theme", "light");
	is([dark, await ground()], ["rgb(21, 24, 28)", "rgb(255, 255, 255)"], "dark and light");
	await page.selectOption("#theme", "");
	is(await page.evaluate(() => ["header", "nav[aria-label]", "main", "footer"].map((s) => Boolean(document.querySelector(s)))), [true, true, true, true], "landmarks");
	is(await page.evaluate(() => [...document.querySelectorAll("input, select, textarea")].filter((e) => !e.labels.length).map((e) => e.outerHTML)), [], "each field has a label");
	await page.setViewportSize({ width: 390, height: 844 });
	const id = sql("SELECT max(id) FROM messages WHERE status = 'dead'");
	for (const section of ["overview", "channels", "messages?status=dead", "message/" + id, "failures", "runs", "mailings"]) {
		await go(section);
		await page.waitForFunction(() => /As of/.test(document.getElementById("state").textContent));
		is(await page.evaluate(() => document.documentElement.scrollWidth), 390, section.split(/[?/]/)[0] + " fits a phone");
	}
	await page.setViewportSize({ width: 1280, height: 900 });
	await go("overview");
	await page.evaluate(() => { Object.defineProperty(document, "hidden", { configurable: true, value: true }); document.dispatchEvent(new Event("visibilitychange")); });
	// what it had begun to ask comes to its end, with what follows from the answers
	for (let quiet = 0; quiet < 5; quiet = underWay ? 0 : quiet + 1) await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
	const before = requests.length;
	await page.waitForTimeout(3000);
	is(requests.length - before, 0, "a hidden page asks nothing");
	const asked = page.waitForRequest(/metrics/);
	await page.evaluate(() => { delete document.hidden; document.dispatchEvent(new Event("visibilitychange")); });
	await asked;
	say("and goes on when it is seen again", true);
}

async function others() {
	await page.click("#leave");
	await page.waitForSelector("#token:visible");
	is(await page.evaluate(() => [sessionStorage.getItem("token"), document.querySelector("#section").textContent]), [null, ""], "signed out, nothing is left");
	await signIn(o.tokens.reader);
	await becomes("#who", /may look, not act/, "a reader is told so");
	for (const section of ["channels", "messages?status=dead", "failures"]) {
		await go(section);
		await page.waitForSelector("#section tbody tr:not(.empty)");
		is(await page.$$eval("#section button", (all) => all.filter((b) => b.offsetParent && /Pause|Resume|Retry|Cancel|Test|Limits/.test(b.textContent)).map((b) => b.textContent)), [], section + ": a reader has no buttons to act");
	}
	await go("message/" + sql("SELECT max(message_id) FROM msg_attempts"));
	await becomes("#section tbody", /status 404/, "but sees attempts");
	await page.click("#leave");
	await signIn(signed({ role: "operator", exp: Math.floor(Date.now() / 1000) - 26 }));
	await becomes("#who", /^operator$/, "a token that is about to expire (30 s are allowed for clocks)");
	await becomes("#refusal", /^Signed out: JWT expired\.$/, "leads back to signing in, with the reason");
	is(await page.evaluate(() => [document.activeElement.id, document.querySelector("#section").hidden]), ["token", true], "where the focus is");
	await signIn(o.tokens.operator);
	await becomes("#who", /^operator$/, "signed in again");
	await page.route(/metrics/, (route) => route.abort());
	await becomes("#banner", /msgsys does not answer/, "a server that does not answer is said aloud");
	await page.unrouteAll();
	await becomes("#banner", /^(?!.*does not answer)/, "and no longer when it does");
}

async function main() {
	sql("SET client_min_messages = error; SELECT msg_channel_set('shop', max_attempts => 5); SELECT msg_webhook_set('shop', '" + o.sink + "/status/404'); SELECT msg_channel_set('calls'); SELECT msg_webhook_set('calls', '" + o.sink + "/ok/200/called');" +
		"SELECT msg_channel_set('quick'); SELECT msg_webhook_set('quick', '" + o.sink + "/ok'); SELECT msg_channel_set('held'); SELECT msg_create('1', 'held') FROM generate_series(1, 3); SELECT msg_create('1', 'held', deliver_at => now() + interval '1 h');" +
		"SELECT msg_create(jsonb_build_object('order', g), 'shop') FROM generate_series(1, 3) g;" +
		`SELECT msg_create('{"html": "<script>hacked = true</script><img src=x onerror=hacked=true>", "n": 12345678901234567890123}', 'shop', message_key => 'it''s', event_type => '<img src=x onerror=hacked=true>', headers => '{"x-tenant": "t1"}')`);
	browser = await chromium.launch({ executablePath: o.chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
	page = await open();
	for (const part of [signingIn, overview, channels, banner, messages, message, failures, runsAndMailings, looks, others]) {
		try { await part(); } catch (error) { say(part.name + " comes to its end", false, error.message); }
	}
	const origin = new URL(o.url).origin;
	is(requests.map((r) => r.url()).filter((url) => !url.startsWith(origin)), [], "nothing is asked of anybody else");
	is(requests.filter((r) => /count=/.test(r.headers().prefer || "")).length, 0, "no request has the history counted");
	is(requests.filter((r) => r.method() !== "GET" && !r.headers().authorization).length, 0, "whatever changes something carries the token");
	is(complaints, [], "the browser has nothing to complain of, the content security policy above all");
	await browser.close();
}

main().catch((error) => { say("the browser", false, error.message); process.exit(1); });
