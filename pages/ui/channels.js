// Channels: pause, resume, a test call, circuit breakers and limits.
import { button, dialog, field, framed, h, say, sure, table } from "./dom.js";
import { ask, call } from "./api.js";
import { at, count, interval, none, seconds, several, span } from "./format.js";
import { again, now } from "./pulse.js";

async function pause(channel) {
	const fields = await dialog(channel ? "Pause channel " + channel + "?" : "Pause everything?", h("div", {}, h("p", {}, "Its messages wait until it is resumed. What is under way comes to its end."),
		field("Reason, for the others", h("input", { name: "reason", maxlength: "200", autocomplete: "off" }))), [["No, go back", ""], ["Pause", "submit", "strong"]]);
	if (!fields) return;
	const done = await call("msg_pause", { channel, reason: fields.reason || null });
	await again();
	say((channel || "Everything") + (done ? " is paused." : " was paused already."));
}

async function resume(channel) {
	const done = await call("msg_resume", { channel });
	await again();
	say((channel || "Everything") + (done ? " goes on." : " was not paused."));
}

async function test(channel) {
	const fields = await dialog("Test call to the webhook of " + channel, h("div", {}, h("p", {}, "One request, now, signed as any other. Nothing is stored."),
		field("Payload (JSON)", h("textarea", { name: "payload", rows: "4", value: '{"test": true}' }))), [["No, go back", ""], ["Call", "submit", "strong"]]);
	if (!fields) return;
	let payload;
	try { payload = JSON.parse(fields.payload); } catch (error) { throw new Error("the payload is not JSON: " + error.message); }
	const answer = await call("msg_test", { channel, payload });
	const well = answer.class === "delivered";
	await dialog("Test call to " + channel + ": " + (well ? "taken" : "not taken"), h("div", {},
		h("p", { class: well ? "good" : "bad", id: "test-result" }, (well ? "✓ " : "✗ ") + [answer.class, answer.code, span(answer.milliseconds / 1000), answer.address, answer.error].filter(Boolean).join(", ")),
		h("h3", {}, "Request"), h("pre", { tabindex: "0" }, answer.method + " " + answer.url + "\n" + Object.entries(answer.request_headers || {}).map(([name, value]) => name + ": " + value).join("\n") + "\n\n" + (answer.request_body || "")),
		h("h3", {}, "Answer"), h("pre", { tabindex: "0" }, answer.response_body || "(empty)")), [["Close", "", "strong"]]);
}

async function limits(c, w) {
	const number = (label, name, value, hint, properties) => field(label, h("input", { name, type: "number", value: value ?? "", ...properties }), hint);
	const fields = await dialog("Limits of " + c.channel, h("div", {}, number("Attempts, after which a message is dead", "max_attempts", c.max_attempts, null, { min: 1, max: 1000, required: true }),
		w && number("Requests at once, of each worker", "concurrency", w.concurrency, null, { min: 1, max: 10000, required: true }),
		w && number("Requests a second, of all workers", "rate", w.rate, "Empty: no limit.", { min: 0, step: "any" })), [["No, go back", ""], ["Set", "submit", "strong"]]);
	if (!fields) return;
	if (Number(fields.max_attempts) !== c.max_attempts) await call("msg_channel_set", { channel: c.channel, max_attempts: Number(fields.max_attempts) });
	if (w && (Number(fields.concurrency) !== w.concurrency || (Number(fields.rate) || null) !== w.rate))
		await call("msg_webhook_set", { channel: c.channel, concurrency: Number(fields.concurrency), rate: Number(fields.rate) || 0 });
	await again();
	say("The limits of " + c.channel + " are set.");
}

async function enable(channel) {
	if (!(await sure("Enable the webhook of " + channel + "?", "Its messages are sent again.", "Enable"))) return;
	await call("msg_webhook_enable", { channel });
	await again();
	say("The webhook of " + channel + " is enabled.");
}

export default function channels() {
	const list = table("Channels", ["Channel", ["State", "state"], "Topic", "Webhook", ["Waiting", "number"], ["Retrying", "number"], ["In flight", "number"], ["Oldest", "number"], "Limits", ["Actions", "actions", true]]);
	const all = h("p", { class: "write actions" });
	let allPaused = null;
	return {
		element: h("div", {}, all, framed(list)),
		async refresh(signal) {
			const [settings, webhooks, own, backlog, paces] = await Promise.all([ask("msg_channel_settings?order=channel", { signal }), ask("msg_webhook_settings", { signal }), ask("msg_channels?select=channel", { signal }),
				ask("msg_backlog", { signal }), ask("msg_paces", { signal })]);
			const everything = now.pauses.some((p) => p.channel === "*");
			if (everything !== allPaused) {
				all.replaceChildren(everything ? button("Resume everything", () => resume(null), { class: "strong" }) : button("Pause everything", () => pause(null)));
				allPaused = everything;
			}
			list.show(settings.map((c) => {
				const of = (...statuses) => backlog.filter((b) => b.channel === c.channel && statuses.includes(b.status));
				const total = (rows) => rows.reduce((n, b) => n + b.count, 0);
				return { c, w: webhooks.find((w) => w.channel === c.channel), p: paces.find((p) => p.channel === c.channel), own: own.some((o) => o.channel === c.channel), waiting: total(of("idle", "scheduled")), retrying: total(of("retry")),
					flight: total(of("sent", "received")), oldest: Math.max(0, ...of("idle", "retry", "sent", "received").map((b) => Math.round(seconds(b.oldest_age)))),
					pause: now.pauses.find((p) => p.channel === c.channel), everything, breaker: now.breakers.find((b) => b.channel === c.channel), disabled: now.disabled.find((d) => d.channel === c.channel), operator: now.operator };
			}), (r) => r.c.channel, (r) => [
				h("a", { href: "#/messages?" + new URLSearchParams({ channel: r.c.channel }) }, r.c.channel),
				[r.pause && h("div", { class: "bad" }, "‖ paused" + (r.pause.reason ? ": " + r.pause.reason : "")), !r.pause && r.everything && h("div", { class: "bad" }, "‖ paused with everything"),
					r.breaker && h("div", { class: "bad", title: r.breaker.failures + " of " + r.breaker.calls + " calls failed, since " + at(r.breaker.since) }, "⚠ breaker " + r.breaker.state),
					r.disabled && h("div", { class: "bad" }, "⚠ webhook disabled"), !r.pause && !r.everything && !r.breaker && !r.disabled && (r.c.topic || r.w ? h("span", { class: "good" }, "✓ running") : h("span", { title: "Its messages wait: set a topic or a webhook." }, "○ sends nothing"))].filter(Boolean),
				r.c.topic ? r.c.topic + " (ack " + r.c.ack + ")" : none, r.w ? r.w.method + " " + r.w.url : none, count(r.waiting), count(r.retrying), count(r.flight), r.oldest ? span(r.oldest) : none,
				[several(r.c.max_attempts, "attempt", "attempts"), r.w && r.w.concurrency + " at once", r.w?.rate && r.w.rate + "/s", r.w && "timeout " + interval(r.w.timeout), r.p && r.p.batch + " every " + interval(r.p.every)].filter(Boolean).join(", "),
				r.operator ? [r.pause ? button("Resume", () => resume(r.c.channel), { data: { act: "pause" }, "aria-label": "Resume " + r.c.channel })
					: button("Pause", () => pause(r.c.channel), { data: { act: "pause" }, "aria-label": "Pause " + r.c.channel }),
				r.w && button("Test", () => test(r.c.channel), { data: { act: "test" }, "aria-label": "Test " + r.c.channel }),
				r.own && button("Limits", () => limits(r.c, r.w), { data: { act: "limits" }, "aria-label": "Limits of " + r.c.channel }),
				r.disabled && button("Enable", () => enable(r.c.channel), { data: { act: "enable" }, "aria-label": "Enable " + r.c.channel })].filter(Boolean) : ""], "No channel.");
		},
	};
}
