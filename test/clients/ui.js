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
// answers that are meant to be refusals: [status or error, address]; the browser speaks of each on its console
const refusals = [["401", /./], ["403", /msg_channel_settings|msg_attempts\?select=excerpt/], ["ERR_FAILED", /metrics/], ["400", /msg_mailing_create/]];
let underWay = 0;

async function open(options) {
	const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"], ...options });
	const made = await context.newPage();
	made.setDefaultTimeout(20000);
	made.on("request", (r) => { requests.push(r); underWay++; });
	for (const end of ["requestfinished", "requestfailed"]) made.on(end, () => underWay--);
	made.on("pageerror", (e) => complaints.push(e.message));
	made.on("console", (m) => {
		if (["error", "warning"].includes(m.type()) && !refusals.some(([why, where]) => /^Failed to load resource/.test(m.text()) && m.text().includes(why) && where.test(m.location().url))) complaints.push(m.text() + " " + m.location().url);
	});
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
// focus(LABEL, NAME): it comes to be on what is labelled so
async function focus(label, name) {
	await page.waitForFunction((l) => document.activeElement.getAttribute("aria-label") === l, label).catch(() => {});
	is(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), label, name);
}
const press = (name, scope = "#section") => page.locator(scope).getByRole("button", { name, exact: true }).click();
// until(QUERY): the database comes to say so
async function until(query) {
	for (const end = Date.now() + 20000; sql("SELECT " + query) !== "t";) {
		if (Date.now() > end) throw new Error("never: " + query);
		await page.waitForTimeout(50);
	}
}
// ids(TABLE), settle(NUMBER, NAME, TABLE): ids that rows lead to, and waiting for so many rows, of the section or of one table
const within = (table) => (table ? `#section [role=region][aria-label="${table}"]` : "#section");
const ids = (table) => page.$$eval(within(table) + " tbody [data-act=open]", (links) => links.map((a) => Number(a.textContent)));
const firstIs = (id) => page.waitForFunction((n) => Number(document.querySelector("#section tbody [data-act=open]")?.textContent) === n, id);
async function settle(wanted, name, table) {
	const rows = within(table) + " tbody tr:not(.empty)";
	await page.waitForFunction(([s, n]) => document.querySelectorAll(s).length === n, [rows, wanted]).catch(() => {});
	is(await page.$$eval(rows, (all) => all.length), wanted, name);
}
// beats(): the page has asked and shown once more
async function beats() {
	await page.waitForResponse((r) => /msg_workers/.test(r.url()));
	const shown = await text("#state");
	await page.waitForFunction((old) => document.getElementById("state").textContent !== old, shown);
}

async function signingIn() {
	await signIn("not.a.token");
	await becomes("#refusal", /^Signed out: .+/, "a wrong token is refused, with the reason");
	is(await page.evaluate(() => [document.activeElement.id, sessionStorage.getItem("token")]), ["token", null], "the field has the focus, and nothing is kept");
	await signIn("Bearer three words är");
	await becomes("#refusal", /^That is not a token/, "what cannot be one is not asked about");
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
	await focus("Pause shop", "Escape gives the focus back");
	is(sql("SELECT count(*) FROM msg_pauses WHERE channel = 'shop'"), "0", "and does nothing");
	await press("Pause shop");
	await page.goBack();
	await becomes("#section h2", /^(?!Channels)/, "another section is gone to while something is asked");
	is([await page.locator("dialog").count(), sql("SELECT count(*) FROM msg_pauses")], [0, "0"], "which is not asked there");
	await go("channels");
	await press("Pause shop");
	await page.fill("dialog [name=reason]", "<b>stocktaking</b>");
	await page.press("dialog [name=reason]", "Enter");
	await becomes("#banner", /Channel shop is paused.*<b>stocktaking<\/b>/, "a channel is paused by the Enter key, which the banner says");
	is(sql("SELECT reason FROM msg_pauses WHERE channel = 'shop'"), "<b>stocktaking</b>", "and so it is");
	await focus("Resume shop", "the focus is where it was, though the row has changed");
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
	await page.waitForFunction((id) => Number(document.querySelector("#section tbody [data-act=open]")?.textContent) < id, first[49]);
	is((await ids())[0], first[49] - 1, "the page after it goes on where it ended");
	like(page.url(), /channel=held.*before=\d+/, "the address says all of it");
	await page.reload();
	await settle(50, "and is enough to come back");
	await page.getByRole("link", { name: "Newer" }).click();
	await firstIs(first[0]).catch(() => {});
	is(await ids(), first, "and back again");
	await page.goBack();
	await firstIs(first[49] - 1);
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
	await go("messages?channel=shop&error=STATUS*04");
	await settle(4, "with * for anything");
	await go("messages?channel=shop&error=status_404");
	await settle(0, "and with _ for itself");
}

async function ticks() {
	await go("messages?channel=held&status=idle");
	await settle(50, "messages that wait");
	const [first, second, third] = await ids();
	const box = (id) => page.getByRole("checkbox", { name: "Tick message " + id, exact: true });
	is(await page.locator("#section").getByRole("button", { name: /ticked/ }).count(), 0, "nothing is ticked, and nothing to be done with it");
	await box(first).check();
	await box(third).check();
	await box(second).check();
	await box(second).uncheck();
	sql("UPDATE messages SET event_type = 'changed' WHERE id = " + first);
	await becomes("#section tbody", /changed/, "a row changes");
	is([await box(first).isChecked(), await box(second).isChecked(), await box(third).isChecked()], [true, false, true], "ticks stay through that");
	await press("Cancel ticked (2)…");
	await press("Cancel 2 messages", "dialog");
	await becomes("#notice", /^Cancelled 2\.×$/, "those that are ticked are cancelled");
	is(sql(`SELECT array_agg(status ORDER BY id DESC) FROM messages WHERE id IN (${first}, ${second}, ${third})`), "{cancelled,idle,cancelled}", "and no other");
	is(await page.locator("#section").getByRole("button", { name: /ticked/ }).count(), 0, "then nothing is ticked");
	await press("Tick all");
	await page.locator("#section").getByRole("button", { name: "Cancel ticked (50)…" }).waitFor();
	await press("Tick none");
	is(await page.$$eval("#section tbody input:checked", (all) => all.length), 0, "all of a page can be ticked, and none");
	sql("SELECT msg_pause('shop')");
	await go("messages?channel=shop");
	await page.waitForFunction(() => document.querySelectorAll("#section .badge.dead").length === 4);
	const dead = (await ids())[1];
	await box(dead).check();
	await press("Retry ticked (1)…");
	await press("Retry 1 message", "dialog");
	await becomes("#notice", /^Retried 1\.×$/, "a ticked one is retried");
	is(sql("SELECT array_agg(id) FROM messages WHERE channel = 'shop' AND status = 'retry'"), "{" + dead + "}", "and no other");
	sql("SELECT msg_resume('shop')");
	await until("count(*) = 4 FROM messages WHERE channel = 'shop' AND status = 'dead'");
}

async function message() {
	const id = sql("SELECT id FROM messages WHERE payload ? 'html'");
	await go("message/" + id);
	await becomes("#section pre", /"html": "<script>hacked = true<\/script>/, "a payload with markup is text");
	await becomes("#section", /<img src=x onerror=hacked=true>/, "as an event type is");
	like(await text("#section pre"), /12345678901234567890123/, "large numbers are as they are");
	is(await page.evaluate(() => [document.querySelectorAll("#section script, #section img").length, typeof window.hacked]), [0, "undefined"], "nothing of it is run, or an element");
	await becomes(".timeline", /created.*attempt 1 failed: status 404, took.*later.*ended as dead[^]*later$/, "the timeline has attempts, times between, and the end last");
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
	sql("SELECT msg_create('{}', 'shop') FROM generate_series(1, 2)");
	await until("bool_and(status IN ('dead', 'cancelled')) FROM messages WHERE channel = 'shop'");
	// as LIKE would have it, the first of these is of the group below
	const others = sql("SELECT id FROM messages WHERE channel = 'shop' ORDER BY id DESC LIMIT 2").split("\n");
	sql("UPDATE messages SET last_error = CASE id WHEN " + others[0] + " THEN 'order X is not 100% wrong_at all' END WHERE id IN (" + others + ")");
	sql("UPDATE messages SET last_error = 'order ' || id || ' is 100% wrong_' || id WHERE id IN (SELECT id FROM messages WHERE status = 'dead' AND channel = 'shop' ORDER BY id LIMIT 2)");
	await go("failures");
	await becomes("#section tbody", /order … is …% wrong_…shop2/, "errors that differ in numbers are one group");
	await becomes("#section tbody", /status 404shop/, "a status code makes a group of its own");
	sql("SELECT msg_pause('shop')");
	await press("Retry messages of shop with the error order … is …% wrong_…");
	await press("Retry 2 messages", "dialog");
	await becomes("#notice", /^Retried 2\./, "a group is retried");
	is(sql("SELECT count(*), bool_and(last_error ~ '^order \\d+ is 100% wrong_\\d+$') FROM messages WHERE status = 'retry'"), "2|t", "and nothing else");
	await page.locator("#section tbody tr", { hasText: "(no error was noted)" }).getByRole("button").click();
	await press("Retry 1 message", "dialog");
	await becomes("#notice", /^Retried 1\./, "one without an error too");
	is(sql("SELECT array_agg(id) FROM messages WHERE status = 'retry' AND last_error IS NULL"), "{" + others[1] + "}", "that one");
	sql("SELECT msg_resume('shop')");
	await page.locator("#section tbody tr", { hasText: "not …% wrong" }).getByRole("link").click();
	await settle(1, "a group's messages are shown");
	is(await ids(), [Number(others[0])], "those");
}

async function runs() {
	await go("runs");
	await becomes("#section", /No channel has a pace.*No run yet/, "there are no runs yet");
	sql("SET client_min_messages = error; SELECT msg_channel_set('paced', max_attempts => 1); SELECT msg_webhook_set('paced', '" + o.sink + "/ok'); SELECT msg_pause('paced')");
	sql("SELECT msg_pace_set('paced', 2, '20 ms'); SELECT msg_create('1', 'paced') FROM generate_series(1, 2)");
	sql("SELECT msg_resume('paced')");
	await until("count(*) > 60 FROM msg_runs");
	sql("SELECT msg_pause('paced')");
	sql("SELECT msg_webhook_set('paced', '" + o.sink + "/status/500'); SELECT msg_pace_set('paced', 2, '1 h', true); SELECT msg_create('2', 'paced') FROM generate_series(1, 2)");
	sql("SELECT msg_resume('paced')");
	await until("failed = 2 AND finished_at IS NOT NULL FROM msg_runs ORDER BY id DESC LIMIT 1");
	await becomes("#section", /paced21 h.*paced.* m?s2⚠? ?0⚠ 2status 500/, "a pace, and a run whose messages failed");
	await settle(50, "a page of runs", "Runs");
	await page.getByRole("link", { name: "Older" }).click();
	await page.waitForFunction(() => /before=/.test(location.hash) && [...document.querySelectorAll("#section tbody tr")].length > 2);
	await page.getByRole("link", { name: "Newest" }).click();
	await page.getByRole("link", { name: "Only those that found messages" }).click();
	await settle(2, "runs that found messages", "Runs");
	const rows = await page.$$eval(within("Runs") + " tbody tr", (all) => all.map((row) => [...row.cells].map((c) => c.textContent)));
	is(rows.map((r) => [r[0], r[1], r[5], r[6], r[7], r[8]].join("|")).join("\n"), sql("SELECT id, channel, claimed, succeeded, CASE WHEN failed > 0 THEN '⚠ ' ELSE '' END || failed, coalesce(error, '–') FROM msg_runs WHERE claimed > 0 ORDER BY id DESC"), "with what came of them");
	like(rows[0][4], /^[\d.]+ m?s$/, "and how long they took");
	await page.locator(within("Runs") + " tbody tr").first().getByRole("link").click();
	await settle(2, "a run leads to its messages");
	is((await ids()).reverse().join("\n"), sql("SELECT id FROM messages WHERE channel = 'paced' AND payload = '2' ORDER BY id"), "those");
	await go("runs?channel=nothing");
	await becomes(within("Runs"), /No such run/, "runs of a channel");
}

async function mailings() {
	// six whose window is open, and four whose is not for hours
	sql("SET client_min_messages = error; SELECT msg_channel_set('sms'); SELECT msg_webhook_set('sms', '" + o.sink + "/ok'); SELECT msg_pause('sms');" +
		`INSERT INTO msg_clients (phone, tag, time_zone, attributes) SELECT '+7' || 9000000000 + g, CASE WHEN g > 10 THEN 'new' ELSE 'vip' END, CASE WHEN g > 6 THEN '+06:00' ELSE 'UTC' END, '{"name": "<b>Anna</b>"}' FROM generate_series(1, 12) g`);
	const clock = (hours) => new Date(Date.now() + hours * 3600000).toISOString().slice(11, 16);
	const local = (hours) => page.evaluate((ms) => { const t = new Date(Date.now() + ms); return new Date(t - t.getTimezoneOffset() * 60000).toISOString().slice(0, 16); }, hours * 3600000);
	const latest = () => Number(sql("SELECT max(id) FROM msg_mailings"));
	const complaint = (name) => page.$eval(`[name=${name}]`, (e) => e.validationMessage);
	const ends = await local(48), from = clock(-1), to = clock(1);
	await go("mailings");
	await becomes("#section tbody", /No mailing yet/, "there are no mailings yet");
	await page.click("summary");
	await page.waitForSelector('#channels option[value="sms"]', { state: "attached" });
	say("channels are proposed", true);
	await press("Create the mailing");
	is([await complaint("text") !== "", sql("SELECT count(*) FROM msg_mailings")], [true, "0"], "a mailing wants a text");
	await page.fill("[name=text]", "Dear {name} <img src=x onerror=hacked=true>");
	await page.fill("[name=ends_at]", await local(-1));
	await press("Create the mailing");
	is(await complaint("ends_at"), "It ends before it begins.", "and an end after its beginning");
	await page.fill("[name=ends_at]", ends);
	await page.fill("[name=window_from]", from);
	await press("Create the mailing");
	is(await complaint("window_to"), "Give both times, or none.", "and both times");
	await page.fill("[name=window_to]", to);
	await page.fill("[name=tags]", " vip, gold,");
	await page.fill("[name=channel]", "nowhere");
	await press("Create the mailing");
	await becomes("#notice", /Not done: channel "nowhere" does not exist/, "what the server refuses is said in its words");
	await page.fill("[name=channel]", "sms");
	await press("Create the mailing");
	await becomes("#section h2", /^Mailing \d+$/, "a mailing is created, and shown");
	await becomes("#notice", /The mailing is created/, "and said so");
	const id = latest();
	is(sql("SELECT text, channel, operator_codes, tags, to_char(window_from, 'HH24:MI'), to_char(window_to, 'HH24:MI'), starts_at BETWEEN now() - interval '1 min' AND now(), ends_at FROM msg_mailings WHERE id = " + id + " AND ends_at = '" + await page.evaluate((t) => new Date(t).toISOString(), ends) + "'").split("|").slice(0, 7),
		["Dear {name} <img src=x onerror=hacked=true>", "sms", "", "{vip,gold}", from, to, "t"], "as it was filled in");
	await becomes("#section", /0 of 10 messages have left or ended \(0 %\)/, "its progress, while the channel is paused");
	await becomes(within("Statistics"), /scheduled440\.0 %.*idle660\.0 %/, "its statistics");
	is(await page.$eval("progress", (e) => e.value), 0, "and as a bar");
	sql("SELECT msg_resume('sms')");
	await becomes("#section", /6 of 10 messages have left or ended \(60 %\)/, "progress follows what is sent");
	is(await page.$eval("progress", (e) => e.value), 0.6, "as the bar does");
	await settle(10, "each client's message is listed", "Messages");
	like(await text(within("Messages") + " tbody tr"), /\+79000000001\d+✓✓ delivered1–Dear <b>Anna<\/b> <img/, "with its text, as text");
	await page.locator(within("Statistics")).getByRole("link", { name: "scheduled" }).click();
	await settle(4, "or those of a status", "Messages");
	await page.getByRole("link", { name: "Of any status" }).click();
	await settle(10, "and all again", "Messages");
	await page.click("summary");
	is(await page.$$eval("#section form :disabled", (all) => all.map((e) => e.name)), ["channel", "starts_at"], "after its start some of it cannot be changed any more");
	await press("Change the mailing");
	await becomes("#notice", /^Nothing was changed/, "what is as it was is no change");
	await page.fill("[name=text]", "Bye {name}");
	await page.fill("[name=window_from]", "");
	await page.fill("[name=window_to]", "");
	await beats();
	is(await page.inputValue("[name=text]"), "Bye {name}", "half a change stays while the page goes on");
	await press("Change the mailing");
	await becomes("dialog", /which has begun/, "a change after the start asks");
	await press("Change the mailing", "dialog");
	await becomes("#section", /10 of 10 messages have left or ended \(100 %\)/, "the others follow when their window is taken away");
	is([await page.$eval("progress", (e) => e.value), sql("SELECT string_agg(n || ' ' || word, ', ' ORDER BY n) FROM (SELECT split_part(text, ' ', 1) AS word, count(*) AS n FROM msg_mailing_log WHERE mailing_id = " + id + " AND status = 'delivered' GROUP BY 1) s")], [1, "4 Bye, 6 Dear"], "with the text as it is then");
	await becomes(within("Statistics"), /StatusClientsShare\W*delivered10100\.0 %$/, "all are delivered");
	await page.locator(within("Messages") + " tbody a").first().click();
	await becomes("#section h2", new RegExp("^Message " + sql("SELECT message_id FROM msg_mailing_log WHERE mailing_id = " + id + " ORDER BY client_id LIMIT 1") + "$"), "a client's message can be looked at");

	await go("mailings");
	await page.click("summary");
	await page.fill("[name=text]", "Later");
	await page.fill("[name=starts_at]", await local(24));
	await page.fill("[name=ends_at]", ends);
	await page.fill("[name=operator_codes]", "900");
	await page.press("[name=operator_codes]", "Enter");
	await becomes("#section", /planned: it has not begun.*Its clients are chosen when it begins/, "the Enter key creates one for later");
	const later = latest();
	is(sql("SELECT count(*) FROM msg_mailings"), "2", "once");
	await page.click("summary");
	await page.fill("[name=operator_codes]", "");
	await page.fill("[name=tags]", "new");
	await page.fill("[name=channel]", "sms");
	await page.fill("[name=window_from]", "20:00");
	await page.fill("[name=window_to]", "00:00");
	await press("Change the mailing");
	await becomes("#notice", /^The mailing is changed\.×$/, "it is changed without a question");
	is(sql("SELECT text, channel, operator_codes, tags, window_from, window_to, status FROM msg_mailings WHERE id = " + later), "Later|sms||{new}|20:00:00|00:00:00|planned", "in what was changed");
	await becomes(".facts", /Channelsms.*Totags new.*20:00 to 00:00/, "which is shown");
	await press("Cancel…");
	await press("No, go back", "dialog");
	is(sql("SELECT status FROM msg_mailings WHERE id = " + later), "planned", "No is no");
	await press("Cancel…");
	await press("Cancel the mailing", "dialog");
	await becomes("#section", /cancelled: what was not yet sent was cancelled/, "it is cancelled");
	is([sql("SELECT status FROM msg_mailings WHERE id = " + later), await page.locator("#section form, #section details").count(), await page.locator("#section").getByRole("button", { name: "Cancel…" }).count()], ["cancelled", 0, 0], "and can be neither changed nor cancelled any more");
	await beats();
	is(await text("#section [role=alert]"), "", "the page goes on all the same");
	await press("Delete…");
	await press("Delete the mailing", "dialog");
	await becomes("#notice", new RegExp("Mailing " + later + " is deleted"), "and deleted");
	await settle(1, "it is no longer in the list");
	is([await ids(), sql("SELECT count(*) FROM msg_mailings WHERE id = " + later)], [[id], "0"], "nor anywhere");

	sql("SELECT msg_pause('sms'); SELECT msg_mailing_create('Never', now() + interval '1 d', channel => 'sms')");
	const never = latest();
	await until("count(*) = 12 FROM msg_mailing_links WHERE mailing_id = " + never);
	await go("mailing/" + never);
	await press("Delete…");
	await becomes("dialog", /What is not yet sent of it is cancelled/, "of one that has begun more is said");
	await press("Delete the mailing", "dialog");
	await until("count(*) = 0 FROM msg_mailings WHERE id = " + never);
	is(sql("SELECT count(*) FROM messages WHERE payload ->> 'text' = 'Never' AND status = 'cancelled'"), "12", "its messages are cancelled, and stay");
	sql("SELECT msg_resume('sms')");
	await go("mailing/" + never);
	await becomes("#section", /There is no mailing/, "a mailing that is not there");
	is(await page.evaluate(() => [document.querySelectorAll("#section img, #section b").length, typeof window.hacked]), [0, "undefined"], "no text became markup");
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
	await page.setViewportSize({ width: 390, height: 844 });
	const id = sql("SELECT max(id) FROM messages WHERE status = 'dead'");
	for (const section of ["overview", "channels", "messages?status=dead", "message/" + id, "failures", "runs", "mailings", "mailing/" + sql("SELECT max(id) FROM msg_mailings")]) {
		await go(section);
		await page.waitForFunction(() => /As of/.test(document.getElementById("state").textContent));
		await page.evaluate(() => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
		is(await page.evaluate(() => [...document.querySelectorAll("input, select, textarea")].filter((e) => !e.labels.length && !e.getAttribute("aria-label")).map((e) => e.outerHTML)), [], section.split(/[?/]/)[0] + ": each field has a label");
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
	// a beat is under way as its user leaves, and would have something to say
	sql("SELECT msg_pause('held')");
	let release, wait = new Promise((resolve) => { release = resolve; });
	await page.route(/msg_pauses/, async (route) => { await wait; await route.continue().catch(() => {}); });
	const late = await page.waitForRequest(/msg_pauses/);
	const over = new Promise((resolve) => { for (const end of ["requestfinished", "requestfailed"]) page.on(end, (r) => r === late && resolve()); });
	await page.click("#leave");
	await page.waitForSelector("#token:visible");
	release();
	await over;
	for (let quiet = 0; quiet < 5; quiet = underWay ? 0 : quiet + 1) await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)));
	is(await text("#banner"), "", "who has signed out is told nothing any more");
	await page.unrouteAll();
	sql("SELECT msg_resume('held')");
	is(await page.evaluate(() => [sessionStorage.getItem("token"), document.querySelector("#section").textContent]), [null, ""], "signed out, nothing is left");
	await signIn(o.tokens.reader);
	await becomes("#who", /may look, not act/, "a reader is told so");
	for (const section of ["channels", "messages?status=dead", "failures", "runs", "mailings", "mailing/" + sql("SELECT max(id) FROM msg_mailings")]) {
		await go(section);
		await page.waitForSelector("#section tbody tr:not(.empty)");
		is(await page.$$eval("#section button, #section input[type=checkbox], #section summary", (all) => all.filter((b) => b.offsetParent && !/^(Filter|Count)$/.test(b.textContent)).map((b) => b.outerHTML)), [], section.split("/")[0] + ": a reader has no buttons to act");
	}
	await go("message/" + sql("SELECT max(message_id) FROM msg_attempts WHERE channel = 'shop'"));
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
	for (const part of [signingIn, overview, channels, banner, messages, ticks, message, failures, runs, mailings, looks, others]) {
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
