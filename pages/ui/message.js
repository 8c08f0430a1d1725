// One message: what happened to it and when, its attempts, headers and payload; retry, cancel, and copies of it as commands.
import { badge, button, copy, framed, h, say, sure, table } from "./dom.js";
import { ask, call, root } from "./api.js";
import { at, bytes, exactly, none, pretty, shellText, span, sqlText } from "./format.js";
import { again, now } from "./pulse.js";

// msg_create()'s parameters for another message like this one; the time when it is due and its deduplication key are its own
const another = (m) => ({ ...(m.body === null ? {} : { body: m.body }), channel: m.channel, message_key: m.message_key, event_type: m.event_type, content_type: m.content_type });
const named = (m) => (m.body === null ? "msg_create" : "msg_create_raw");

function asSql(m) {
	const parts = [m.body === null ? "payload => " + sqlText(m.payload_text) : "body => " + sqlText(m.body)];
	for (const name of ["channel", "message_key", "event_type", "content_type"]) if (m[name] !== null) parts.push(name + " => " + sqlText(m[name]));
	if (m.headers_text !== null) parts.push("headers => " + sqlText(m.headers_text));
	return "SELECT " + named(m) + "(" + parts.join(", ") + ");";
}

function asCurl(m) {
	// the payload's own text, for reading and writing it would change large numbers
	const rest = Object.entries(another(m)).filter(([, value]) => value !== null).map(([name, value]) => JSON.stringify(name) + ": " + JSON.stringify(value));
	if (m.body === null) rest.unshift('"payload": ' + m.payload_text);
	if (m.headers_text !== null) rest.push('"headers": ' + m.headers_text);
	return "curl " + shellText(location.origin + root + "rpc/" + named(m)) + ' -H "Authorization: Bearer $TOKEN" -H \'Content-Type: application/json\' -d ' + shellText("{" + rest.join(", ") + "}");
}

// What happened, in the order of time: [time, what].
function events(m, attempts) {
	const found = [[m.created_at, "created"]];
	if (m.sent_at) found.push([m.sent_at, "sent to Kafka, partition " + m.kafka_partition + ", offset " + m.kafka_offset]);
	if (m.received_at) found.push([m.received_at, "received"]);
	for (const a of attempts) found.push([a.at, "attempt " + a.attempt + " " + (a.class === "delivered" ? "succeeded" : "failed: " + a.class) + (a.code ? " " + a.code : "") + ", took " + span(a.milliseconds / 1000)]);
	if (!m.finished_at && m.due_at) found.push([m.due_at, "due"]);
	if (!m.finished_at && m.expires_at) found.push([m.expires_at, "expires"]);
	const time = ([text]) => new Date(text).getTime();
	found.sort((a, b) => time(a) - time(b));
	// The attempt that led to the end is written down right after it, and comes before it all the same.
	const end = m.delivered_at ? [m.delivered_at, "delivered"] : m.finished_at && [m.finished_at, "ended as " + m.status];
	if (end) found.splice(found.findLastIndex((event) => time(event) <= time(end) + 1000) + 1, 0, end);
	if (m.delivered_at && m.finished_at && m.finished_at !== m.delivered_at) found.push([m.finished_at, "ended as " + m.status]);
	return found;
}

export default function message(params, id) {
	const element = h("div");
	const attemptsTable = table("Attempts", [["Attempt", "number"], "Ended", ["Took", "number"], "Outcome", "Address", "Error", "Answer"]);
	const timeline = h("ol", { class: "timeline" });
	const facts = h("dl", { class: "facts" });
	const head = h("p", { class: "actions", id: "message-head" });
	const value = h("pre", { tabindex: "0", "aria-label": "Payload" });
	const headers = h("dl", { class: "facts" });
	let old = "";
	const pairs = (rows) => rows.filter(([, v]) => v !== null && v !== undefined && v !== "").map(([name, v]) => h("div", {}, h("dt", {}, name), h("dd", {}, v)));

	function show(m, attempts) {
		const focused = head.contains(document.activeElement) && document.activeElement.dataset.act;
		head.replaceChildren(badge(m.status), " ",
			...[now.operator && m.status === "dead" && button("Retry", async () => {
				const done = await call("msg_retry", { id: m.id });
				await again();
				say(done ? "The message is sent again." : "The message is no longer dead.", !done);
			}, { class: "strong", data: { act: "retry" } }),
			now.operator && ["scheduled", "idle", "retry"].includes(m.status) && button("Cancel…", async () => {
				if (!(await sure("Cancel message " + m.id + "?", "It is not yet sent, and will not be.", "Cancel the message"))) return;
				const done = await call("msg_cancel", { id: m.id });
				await again();
				say(done ? "The message is cancelled." : "It was too late to cancel it.", !done);
			}, { class: "danger", data: { act: "cancel" } }),
			button("Copy as SQL", () => copy(asSql(m), "SQL"), { data: { act: "sql" } }), button("Copy as curl", () => copy(asCurl(m), "Command"), { data: { act: "curl" } })].filter(Boolean));
		if (focused) head.querySelector('[data-act="' + focused + '"]')?.focus();
		const list = events(m, attempts);
		timeline.replaceChildren(...list.map(([time, what], i) => h("li", {}, h("time", { datetime: time }, exactly(time)), " ", h("strong", {}, what),
			i > 0 && h("small", {}, " " + span(Math.max(0, new Date(time) - new Date(list[i - 1][0])) / 1000) + " later"), new Date(time) > Date.now() && h("small", {}, " (to come)"))));
		facts.replaceChildren(...pairs([["Channel", h("a", { href: "#/messages?" + new URLSearchParams({ channel: m.channel }) }, m.channel)], ["Key", m.message_key], ["Event type", m.event_type], ["Attempts", String(m.attempts)],
			["Content type", m.content_type], ["Deduplication key", m.dedup_key], ["Status code", m.response_code && String(m.response_code)], ["Id in the answer", m.response_id], ["Latest error", m.last_error]]));
		headers.replaceChildren(...(m.headers ? pairs(Object.entries(m.headers)) : [h("div", {}, h("dt", {}, "None"))]));
		if (m.body === null) value.textContent = pretty(m.payload_text);
		else {
			const raw = bytes(m.body);
			let text;
			try { text = new TextDecoder("utf-8", { fatal: true }).decode(raw); } catch { text = m.body; }
			value.textContent = "(" + raw.length + " bytes)\n" + text;
		}
		attemptsTable.show(attempts, (a) => a.id, (a) => [a.attempt, at(a.at), span(a.milliseconds / 1000), (a.class === "delivered" ? "✓ " : "✗ ") + a.class + (a.code ? " " + a.code : ""), a.address || none, a.error || none,
			a.excerpt ? h("details", {}, h("summary", {}, "show"), h("pre", {}, a.excerpt)) : none], "No attempt failed, or none was kept (keep_attempts).");
	}

	return {
		title: "Message " + id, element,
		async refresh(signal) {
			if (!/^\d{1,19}$/.test(id || "")) throw new Error("“" + id + "” is not an id.");
			const [rows, attempts] = await Promise.all([ask("messages?select=*,payload_text:payload::text,headers_text:headers::text&id=eq." + id, { signal }),
				ask("msg_attempts?select=id,attempt,at,milliseconds,class,code" + (now.operator ? ",address,error,excerpt" : "") + "&message_id=eq." + id + "&order=id&limit=1000", { signal })]);
			if (!rows.length) {
				element.replaceChildren(h("p", {}, "There is no message " + id + ". It may have been purged."));
				return;
			}
			if (!timeline.isConnected) element.replaceChildren(head, h("h3", {}, "Timeline"), timeline, h("h3", {}, "Message"), facts, h("h3", {}, "Payload"), value, h("h3", {}, "Headers"), headers, h("h3", {}, "Attempts"), framed(attemptsTable));
			const text = JSON.stringify([rows, attempts]);
			if (text === old) return;
			old = text;
			show({ ...rows[0], id }, attempts);
		},
	};
}
