// Mailings: a list, a form for a new one, and one mailing with its progress and statistics.
import { badge, button, field, framed, h, links, say, sure, table } from "./dom.js";
import { ask, call, orNone } from "./api.js";
import { at, count, none, short } from "./format.js";
import { again, now } from "./pulse.js";
import { absent } from "./runs.js";
import { statuses } from "./messages.js";

const page = 50;
const over = ["finished", "cancelled", "cancelling", "deleting"];
const filter = (g) => [g.operator_codes && "operators " + g.operator_codes.join(", "), g.tags && "tags " + g.tags.join(", "), g.window_from && g.window_from.slice(0, 5) + " to " + g.window_to.slice(0, 5)].filter(Boolean).join("; ") || "all clients";

function form() {
	const input = (name, properties) => h("input", { name, autocomplete: "off", ...properties });
	const words = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);
	const time = (text) => (text ? new Date(text).toISOString() : null);
	const element = h("form", { class: "filters" },
		field("Text", h("textarea", { name: "text", rows: "3", required: true, class: "wide" }), "{phone}, {tag} and names of a client's attributes stand for these"),
		field("Channel", input("channel", { value: "default", required: true })), field("Begins", input("starts_at", { type: "datetime-local" }), "Empty: now"), field("Ends", input("ends_at", { type: "datetime-local", required: true })),
		field("From, by the client's clock", input("window_from", { type: "time" })), field("Until, by that clock", input("window_to", { type: "time" }), "Both empty: all day"),
		field("Operator codes", input("operator_codes"), "With commas; empty: any"), field("Tags", input("tags"), "With commas; empty: any"));
	const create = button("Create the mailing", async () => {
		if (!element.reportValidity()) return;
		const f = Object.fromEntries(new FormData(element));
		const id = await call("msg_mailing_create", { text: f.text, ends_at: time(f.ends_at), starts_at: time(f.starts_at), channel: f.channel, operator_codes: words(f.operator_codes), tags: words(f.tags),
			window_from: f.window_from || null, window_to: f.window_to || null });
		location.hash = "#/mailings/" + id;
	}, { class: "strong" });
	element.append(h("div", { class: "actions" }, create));
	element.addEventListener("submit", (event) => { event.preventDefault(); create.click(); });
	return h("details", { class: "write" }, h("summary", {}, "New mailing"), element);
}

function all(params) {
	const element = h("div");
	const list = table("Mailings", [["Mailing", "number"], "State", "Text", "Channel", "Begins", "Ends", "To"]);
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	const create = form();
	return {
		element,
		async refresh(signal) {
			const before = params.get("before");
			const found = await orNone(ask("msg_mailings?order=id.desc&limit=" + (page + 1) + (before ? "&id=lt." + before : ""), { signal }));
			if (found === null) {
				element.replaceChildren(absent("Mailings"));
				return;
			}
			if (!list.isConnected) element.replaceChildren(...[now.operator && create, framed(list), pages].filter(Boolean));
			const rows = found.slice(0, page);
			list.show(rows, (g) => g.id, (g) => [h("a", { href: "#/mailings/" + g.id, data: { act: "open" } }, String(g.id)), g.status, short(g.text, 80), g.channel, at(g.starts_at), at(g.ends_at), filter(g)], "No mailing yet.");
			links(pages, [before && ["The newest", "#/mailings"], found.length > page && ["Older", "#/mailings?before=" + rows[page - 1].id]].filter(Boolean));
		},
	};
}

function one(id) {
	const element = h("div");
	const head = h("p", { class: "actions" });
	const facts = h("dl", { class: "facts" });
	const bar = h("progress", { max: "1", "aria-label": "Clients whose message has left or ended" });
	const words = h("p");
	const list = table("Statistics", ["Status", ["Clients", "number"], ["Share", "number"]]);
	let old = "";
	return {
		title: "Mailing " + id, element,
		async refresh(signal) {
			if (!/^\d{1,19}$/.test(id)) throw new Error("“" + id + "” is not an id.");
			const [rows, stats] = await Promise.all([orNone(ask("msg_mailings?id=eq." + id, { signal })), orNone(ask("rpc/msg_mailing_stats?id=" + id, { signal }))]);
			if (rows === null || stats === null) {
				element.replaceChildren(absent("Mailings"));
				return;
			}
			if (!rows.length || !stats.length) {
				element.replaceChildren(h("p", {}, "There is no mailing " + id + ". It may have been deleted."));
				return;
			}
			const [g, s] = [rows[0], stats[0]];
			if (!list.isConnected) element.replaceChildren(head, facts, h("h3", {}, "Progress"), bar, words, h("h3", {}, "Statistics"), framed(list));
			if (g.status + now.operator !== old) {
				old = g.status + now.operator;
				head.replaceChildren(h("strong", {}, g.status), " ", ...[now.operator && !over.includes(g.status) && button("Cancel…", async () => {
					if (!(await sure("Cancel mailing " + id + "?", "What is not yet sent of it is cancelled.", "Cancel the mailing"))) return;
					const done = await call("msg_mailing_cancel", { id });
					await again();
					say(done ? "The mailing is cancelled; what is not yet sent follows in a moment." : "The mailing is over already.", !done);
				}, { class: "danger" })].filter(Boolean));
			}
			facts.replaceChildren(...[["Text", g.text], ["Channel", g.channel], ["Begins", at(g.starts_at)], ["Ends", at(g.ends_at)], ["To", filter(g)]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
			const gone = s.clients - s.scheduled - s.idle - s.retry;
			bar.value = s.clients ? gone / s.clients : 0;
			words.textContent = count(gone) + " of " + count(s.clients) + " messages have left or ended (" + (s.clients ? Math.floor((100 * gone) / s.clients) : 0) + " %)" + (s.left_out ? "; " + count(s.left_out) + " clients were left out" : "") +
				(g.status === "running" ? "; clients are still being added" : "") + ".";
			list.show([...statuses, "purged"].filter((name) => s[name] > 0).map((name) => ({ name, n: s[name], share: s[name] / s.clients })), (r) => r.name,
				(r) => [r.name === "purged" ? "purged" : badge(r.name), count(r.n), (100 * r.share).toFixed(1) + " %"], g.status === "planned" ? "It has not begun." : none);
		},
	};
}

export default function mailings(params, id) {
	return id === undefined ? all(params) : one(id);
}
