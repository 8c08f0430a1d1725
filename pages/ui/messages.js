// Messages: filters kept in the address, pages by id, and actions on all that match.
import { badge, button, choice, field, framed, h, links, say, sure, table } from "./dom.js";
import { ask, call, token } from "./api.js";
import { at, count, none, several, short } from "./format.js";
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
	// * is the only character that stands for others
	add("error", "last_error", (v) => "ilike.*" + v.replace(/[\\%_]/g, "\\$&") + "*");
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

// What can be done with many: only with those of a status.
const retrying = { verb: "Retry", done: "Retried", name: "msg_retry_many", statuses: ["dead"], meaning: "They are dead, and get all their attempts again." };
const cancelling = { verb: "Cancel", done: "Cancelled", name: "msg_cancel_many", statuses: waiting, meaning: "They are not yet sent, and will not be." };

// actOn(IDS, ACTION, MORE): these and no others, in portions, after a question, which says MORE. Returns whether it was done.
async function actOn(ids, action, more = "") {
	const what = several(ids.length, "message", "messages");
	if (!(await sure(action.verb + " " + what + "?", more + action.meaning, action.verb + " " + what))) return false;
	const mine = token();
	let changed = 0;
	for (let i = 0; i < ids.length; i += portion) {
		// not in the name of somebody else
		if (token() !== mine) return false;
		try {
			changed += await call(action.name, { ids: ids.slice(i, i + portion) });
		} catch (error) {
			throw changed ? new Error("the rest, after " + count(changed) + " of " + count(ids.length) + ": " + error.message) : error;
		}
		say(action.done + " " + count(changed) + " of " + count(ids.length) + " …");
	}
	await again();
	say(action.done + " " + count(changed) + (changed < ids.length ? " of " + count(ids.length) + "; the others were no longer " + action.statuses.join(", ") : "") + ".");
	return true;
}
export const retryAll = (ids, more) => actOn(ids, retrying, more);

// All that match, as they were counted, and nothing that came later.
async function actOnMatching(params, action) {
	const status = params.get("status");
	const wanted = status ? [status] : action.statuses;
	const ids = await matching(params, wanted);
	if (!ids.length) return say("No message that matches is " + wanted.join(", ") + ".");
	await actOn(ids, action, ids.length >= bound ? "More than these match: the newest " + count(bound) + " are taken, do it again for the rest. " : "");
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
	const list = table("Messages", [...(now.operator ? [["Tick", "tick", true]] : []), ["Id", "number"], "Status", "Channel", "Key", "Event type", "Created", ["Attempts", "number"], "Latest error"]);
	const status = params.get("status");
	const fits = (action) => now.operator && (!status || action.statuses.includes(status));
	const acts = h("div", { class: "actions" },
		button("Count", async () => { const n = (await matching(params)).length; say(n >= bound ? count(n) + " or more messages match." : several(n, "message matches.", "messages match.")); }),
		fits(retrying) && button("Retry all that match…", () => actOnMatching(params, retrying)),
		fits(cancelling) && button("Cancel all that match…", () => actOnMatching(params, cancelling), { class: "danger" }));

	// ticked: ids of rows that are shown; what leaves the page is no longer ticked
	const ticked = new Set();
	let shown = [];
	const actOnTicked = (action) => button(action.verb + " ticked…", async () => {
		const ids = shown.filter((m) => ticked.has(m.id) && action.statuses.includes(m.status)).map((m) => m.id);
		if (await actOn(ids, action)) tickAll(false);
	}, { class: action === cancelling && "danger" });
	const some = [retrying, cancelling].filter(fits).map((action) => [action, actOnTicked(action)]);
	const all = button("Tick all", () => tickAll(ticked.size < shown.length));
	const ticks = h("div", { class: "actions", role: "group", "aria-label": "Ticked messages" }, all, some.map(([, element]) => element));
	function tickAll(on) {
		ticked.clear();
		if (on) for (const m of shown) ticked.add(m.id);
		for (const box of list.querySelectorAll("td.tick input")) box.checked = on;
		countTicks();
	}
	function countTicks() {
		ticks.hidden = !some.length || !shown.length;
		all.textContent = shown.length && ticked.size === shown.length ? "Tick none" : "Tick all";
		for (const [action, element] of some) {
			const n = shown.filter((m) => ticked.has(m.id) && action.statuses.includes(m.status)).length;
			element.textContent = action.verb + " ticked (" + n + ")…";
			element.hidden = !n;
		}
	}
	const tick = (m) => h("input", { type: "checkbox", "aria-label": "Tick message " + m.id, data: { act: "tick" }, checked: ticked.has(m.id), onchange: (event) => { ticked[event.target.checked ? "add" : "delete"](m.id); countTicks(); } });
	countTicks();
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	return {
		element: h("div", {}, form, acts, ticks, framed(list), pages),
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
			shown = rows;
			for (const id of ticked) if (!rows.some((m) => m.id === id)) ticked.delete(id);
			countTicks();
			list.show(rows, (m) => m.id, (m) => [...(now.operator ? [tick(m)] : []), h("a", { href: "#/message/" + m.id, data: { act: "open" } }, m.id), badge(m.status), m.channel, short(m.message_key, 40), short(m.event_type, 40),
				h("time", { datetime: m.created_at }, at(m.created_at)), m.attempts, m.last_error ? h("span", { title: m.last_error }, short(m.last_error)) : none], "No message matches.");
			const older = rows.length && (after || more), newer = rows.length && (after ? more : before);
			links(pages, [newer && ["Newest", address(params, { before: null, after: null })], newer && ["Newer", address(params, { before: null, after: rows[0].id })],
				older && ["Older", address(params, { before: rows[rows.length - 1].id, after: null })]].filter(Boolean));
		},
	};
}
