// Messages: filters kept in the address, pages by id, and actions on all that match.
import { badge, button, choice, field, framed, h, links, say, sure, table } from "./dom.js";
import { ask, call } from "./api.js";
import { ago, at, count, none, short } from "./format.js";
import { again, now } from "./pulse.js";

const page = 50;		// rows
const bound = 10000;	// most messages that are counted, or acted on, at a time
const portion = 500;	// of them, a request
export const statuses = ["scheduled", "idle", "sent", "received", "retry", "delivered", "dead", "cancelled", "expired"];
const waiting = ["scheduled", "idle", "retry"];

// The filters of an address as the facade's; on top of them come status and the page.
export function conditions(params) {
	const query = new URLSearchParams();
	const add = (name, column, text) => { if (params.get(name)) query.append(column, text(params.get(name))); };
	add("status", "status", (v) => "eq." + v);
	add("channel", "channel", (v) => "eq." + v);
	add("key", "message_key", (v) => "eq." + v);
	add("type", "event_type", (v) => "eq." + v);
	add("error", "last_error", (v) => "ilike.*" + v + "*");
	add("from", "created_at", (v) => "gte." + new Date(v).toISOString());
	add("to", "created_at", (v) => "lt." + new Date(v).toISOString());
	add("payload", "payload", (v) => "cs." + v);
	add("least", "id", (v) => "gte." + v);
	return query;
}

// The ids of what matches and has one of these statuses, the newest first, up to the bound.
async function matching(params, wanted) {
	const query = conditions(params);
	if (wanted) query.append("status", "in.(" + wanted + ")");
	return (await ask("messages?select=id::text&order=id.desc&limit=" + bound + "&" + query)).map((m) => m.id);
}

const some = (ids) => count(ids.length) + (ids.length >= bound ? " or more" : "");

// All that match, in portions: what was counted and confirmed, and nothing that came later.
async function act(params, wanted, verb, done, name) {
	const ids = await matching(params, wanted);
	if (!ids.length) return say("No message that matches is " + wanted.join(", ") + ".");
	const what = ids.length === 1 ? "1 message" : count(ids.length) + " messages";
	if (!(await sure(verb + " " + what + "?", (ids.length >= bound ? "More than these match: the newest " + count(bound) + " are taken, do it again for the rest. " : "") +
		(name === "msg_retry_many" ? "They are dead, and get all their attempts again." : "They are not yet sent, and will not be."), verb + " " + what))) return;
	let changed = 0;
	for (let i = 0; i < ids.length; i += portion) {
		changed += await call(name, { ids: ids.slice(i, i + portion) });
		say(done + " " + count(changed) + " of " + count(ids.length) + " …");
	}
	await again();
	say(done + " " + count(changed) + (changed < ids.length ? " of " + count(ids.length) + "; the others were no longer " + wanted.join(", ") : "") + ".");
}

const address = (params, change) => {
	const next = new URLSearchParams(params);
	for (const [name, value] of Object.entries(change)) value === null ? next.delete(name) : next.set(name, value);
	return "#/messages" + (next.size ? "?" + next : "");
};

export default function messages(params) {
	const input = (name, properties) => h("input", { name, value: params.get(name) || "", autocomplete: "off", ...properties });
	const payload = input("payload", { placeholder: '{"order": 1}', spellcheck: "false", class: "wide" });
	const form = h("form", { class: "filters", role: "search", "aria-label": "Filters" },
		field("Status", choice("status", [["", "any"], ...statuses.map((s) => [s, s])], params.get("status"))),
		field("Channel", input("channel")), field("Key", input("key")), field("Event type", input("type")), field("Error has", input("error"), "* stands for anything"),
		field("Created from", input("from", { type: "datetime-local", step: "1" })), field("Created until", input("to", { type: "datetime-local", step: "1" })), field("From id", input("least", { inputmode: "numeric", pattern: "[0-9]{1,18}" })),
		field("Payload contains (JSON)", payload, "An object with what is to be in it"),
		h("div", { class: "actions" }, h("button", { class: "strong" }, "Filter"), h("a", { href: "#/messages", class: "button" }, "Clear")));
	payload.addEventListener("input", () => payload.setCustomValidity(""));
	form.addEventListener("submit", (event) => {
		event.preventDefault();
		const fields = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
		try { if (fields.get("payload")) JSON.parse(fields.get("payload")); } catch {
			payload.setCustomValidity("This is not JSON.");
			payload.reportValidity();
			return;
		}
		const next = address(fields, {});
		if (next === location.hash) again();
		else location.hash = next;
	});
	const list = table("Messages", [["Id", "number"], "Status", "Channel", "Key", "Event type", "Created", ["Attempts", "number"], "Latest error"]);
	const status = params.get("status");
	const acts = h("div", { class: "actions" },
		button("Count", async () => { const ids = await matching(params); say((ids.length === 1 ? "1 message matches." : some(ids) + " messages match.")); }),
		now.operator && (!status || status === "dead") && button("Retry all that match…", () => act(params, ["dead"], "Retry", "Retried", "msg_retry_many")),
		now.operator && (!status || waiting.includes(status)) && button("Cancel all that match…", () => act(params, status ? [status] : waiting, "Cancel", "Cancelled", "msg_cancel_many"), { class: "danger" }));
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	return {
		element: h("div", {}, form, acts, framed(list), pages),
		async refresh(signal) {
			// one row more than a page says whether there is another one
			const after = params.get("after"), before = params.get("before");
			const query = conditions(params);
			if (after) query.append("id", "gt." + after);
			else if (before) query.append("id", "lt." + before);
			let rows = await ask("messages?select=id::text,status,channel,message_key,event_type,created_at,attempts,last_error&order=id." + (after ? "asc" : "desc") + "&limit=" + (page + 1) + "&" + query, { signal });
			const more = rows.length > page;
			rows = rows.slice(0, page);
			if (after) rows.reverse();
			list.show(rows, (m) => m.id, (m) => [h("a", { href: "#/message/" + m.id, data: { act: "open" } }, m.id), badge(m.status), m.channel, short(m.message_key, 40), short(m.event_type, 40),
				h("time", { datetime: m.created_at, title: ago(m.created_at) }, at(m.created_at)), m.attempts, m.last_error ? h("span", { title: m.last_error }, short(m.last_error)) : none], "No message matches.");
			const older = rows.length && (after || more), newer = rows.length && (after ? more : before);
			links(pages, [newer && ["Newest", address(params, { before: null, after: null })], newer && ["Newer", address(params, { before: null, after: rows[0].id })],
				older && ["Older", address(params, { before: rows[rows.length - 1].id, after: null })]].filter(Boolean));
		},
	};
}
