// Failures: dead messages grouped by error, and retry of a group, of the messages that it has and no others. The history is never searched as a whole: one window of ids at a time.
import { button, framed, h, links, table } from "./dom.js";
import { ask } from "./api.js";
import { at, count, short } from "./format.js";
import { retryAll } from "./messages.js";
import { now } from "./pulse.js";

const windowIds = 100000;
const most = 10000;			// dead messages of a window that are grouped

// common(ERROR): the error with … for what differs from message to message: ids, numbers, addresses; a status code tells one failure from another.
const common = (error) => error
	.replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b|(?<!status \d*)\d+(?:[.:]\d+)*/gi, "…");

function groups(rows) {
	const found = new Map();
	for (const m of rows) {
		const error = m.last_error === null ? null : common(m.last_error);
		const key = JSON.stringify([m.channel, error]);
		const group = found.get(key) || { key, channel: m.channel, error, example: m.last_error, ids: [], first: m.finished_at, last: m.finished_at };
		group.ids.push(m.id);
		if (m.finished_at < group.first) group.first = m.finished_at;
		if (m.finished_at > group.last) group.last = m.finished_at;
		found.set(key, group);
	}
	return [...found.values()].sort((a, b) => b.ids.length - a.ids.length);
}

// text(GROUP): its error, for people.
const text = (g) => (g.error === null ? "(no error was noted)" : short(g.error, 300));

export default function failures(params) {
	const list = table("Failures", ["Error", "Channel", ["Messages", "number"], "Died last", "First", ["Actions", "actions", true]]);
	const where = h("p", {}, "…");
	let found = new Map();
	const moment = (time) => h("time", { datetime: time }, at(time));
	const retry = (key) => { const g = found.get(key); return g && retryAll(g.ids, "Dead messages of " + g.channel + " with the error “" + text(g) + "”. "); };
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	return {
		element: h("div", {}, where, framed(list), pages),
		async refresh(signal) {
			const newest = Number((await ask("messages?select=id&order=id.desc&limit=1", { signal }))[0]?.id ?? 0);
			const to = Math.min(newest, Number(params.get("to")) || newest);
			const from = Math.max(1, to - windowIds + 1);
			const rows = await ask("messages?select=id::text,channel,last_error,finished_at&status=eq.dead&id=gte." + from + "&id=lte." + to + "&order=id.desc&limit=" + most, { signal });
			where.textContent = newest ? (rows.length >= most ? "The newest " + count(most) : count(rows.length)) + " dead among the messages " + from + " to " + to + "." : "There is no message yet.";
			found = new Map(groups(rows).map((g) => [g.key, g]));
			list.show([...found.values()].map(({ ids, ...g }) => ({ ...g, count: ids.length })), (g) => g.key, (g) => [h("span", { title: g.example }, text(g)), g.channel, count(g.count), moment(g.last), moment(g.first),
				[h("a", { class: "button", href: "#/messages?" + new URLSearchParams({ status: "dead", channel: g.channel, ...(g.error && { error: g.error.replace(/…+/g, "*") }) }), data: { act: "show" }, "aria-label": "Show messages of " + g.channel + " with the error " + text(g) }, "Show"),
					now.operator && button("Retry…", () => retry(g.key), { data: { act: "retry" }, "aria-label": "Retry messages of " + g.channel + " with the error " + text(g) })].filter(Boolean)], "No dead message.");
			links(pages, [to < newest && ["The newest messages", "#/failures"], from > 1 && ["Look at older messages", "#/failures?to=" + (from - 1)]].filter(Boolean));
		},
	};
}
