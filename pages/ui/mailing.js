// One mailing: its progress, its statistics and its messages; changing, cancelling and deleting it.
import { badge, button, framed, goTo, h, links, say, sure, table } from "./dom.js";
import { ask, call } from "./api.js";
import { at, count, none, several, short } from "./format.js";
import { hours, mailingForm, who } from "./mailings.js";
import { statuses } from "./messages.js";
import { again, now } from "./pulse.js";

const page = 50;
const meaning = { planned: "it has not begun", running: "its clients become messages", expanded: "each of its clients has a message", finished: "its end has passed",
	cancelling: "what is not yet sent is being cancelled", cancelled: "what was not yet sent was cancelled", deleting: "it is being forgotten" };
const changeable = ["planned", "running", "expanded"];

// What its progress is in words.
function progress(g, s, gone) {
	if (g.status === "planned") return "Its clients are chosen when it begins.";
	return (s.clients ? count(gone) + " of " + several(s.clients, "message has", "messages have") + " left or ended (" + Math.floor((100 * gone) / s.clients) + " %)" : "It has no message") +
		(s.left_out ? "; " + several(s.left_out, "client was", "clients were") + " left out, with no time left before its end or too long a text" : "") + (g.status === "running" ? "; clients are still gone through" : "") + ".";
}

export default function mailing(params, id) {
	const element = h("div");
	const head = h("p", { class: "actions" });
	const place = h("div");
	const facts = h("dl", { class: "facts" });
	const bar = h("progress", { max: "1", "aria-label": "Messages that have left or ended" });
	const sentence = h("p");
	const statistics = table("Statistics", ["Status", ["Clients", "number"], ["Share", "number"]]);
	const list = table("Messages", [["Client", "number"], "Phone", ["Message", "number"], "Status", ["Attempts", "number"], "Due", "Text", "Latest error"]);
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	const status = statuses.includes(params.get("status")) ? params.get("status") : null, after = /^\d{1,19}$/.test(params.get("after")) ? params.get("after") : "0";
	const address = (wanted) => {
		const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value));
		return "#/mailing/" + id + (query.size ? "?" + query : "");
	};
	let shown = "", form = null, formOf = "";

	async function change(g, argument) {
		if (!Object.keys(argument).length) return say("Nothing was changed.");
		if (g.status !== "planned" && !(await sure("Change mailing " + id + ", which has begun?", "What is not yet sent follows. Who is not meant any more gets nothing, who is meant now gets a message. What a worker has in hand is sent as it was.", "Change the mailing"))) return;
		await call("msg_mailing_update", { id, ...argument });
		form = null;
		await again();
		say(g.status === "planned" ? "The mailing is changed." : "The mailing is changed; what is not yet sent follows in a moment.");
	}

	async function cancel() {
		if (!(await sure("Cancel mailing " + id + "?", "What is not yet sent of it is cancelled. This cannot be taken back.", "Cancel the mailing"))) return;
		const done = await call("msg_mailing_cancel", { id });
		await again();
		say(done ? "The mailing is cancelled." : "The mailing is over already.", !done);
	}

	async function remove(g) {
		if (!(await sure("Delete mailing " + id + "?", (changeable.includes(g.status) ? "What is not yet sent of it is cancelled. " : "") + "It is forgotten, with its statistics; its messages stay. This cannot be taken back.", "Delete the mailing"))) return;
		const done = await call("msg_mailing_delete", { id });
		goTo("#/mailings", done ? "Mailing " + id + " is deleted." : "Mailing " + id + " was deleted already.");
	}

	// What can be done with it; nothing changes, focus and half a form least of all, where its state does not.
	function act(g) {
		if (form && !place.querySelector("details").open && formOf !== g.updated_at) form = null;
		const text = g.status + now.operator + Boolean(form);
		if (text === shown) return;
		const focused = head.contains(document.activeElement) && document.activeElement.dataset.act;
		head.replaceChildren(h("span", {}, h("strong", {}, g.status), ": " + meaning[g.status]),
			...(now.operator ? [changeable.includes(g.status) && button("Cancel…", cancel, { class: "danger", data: { act: "cancel" } }),
				g.status !== "deleting" && button("Delete…", () => remove(g), { class: "danger", data: { act: "delete" } })].filter(Boolean) : []));
		if (focused) head.querySelector('[data-act="' + focused + '"]')?.focus();
		if (!now.operator || !changeable.includes(g.status)) {
			place.replaceChildren();
			form = null;
		} else {
			if (!form) {
				form = mailingForm(g, "Change the mailing", (argument) => change(latest, argument));
				formOf = g.updated_at;
				place.replaceChildren(h("details", { class: "write" }, h("summary", {}, "Change…"), form.element));
			}
			if (g.status !== "planned") form.begun(g);
		}
		shown = g.status + now.operator + Boolean(form);
	}

	let latest = null;
	return {
		title: "Mailing " + id, element,
		async refresh(signal) {
			if (!/^\d{1,19}$/.test(id || "")) throw new Error("“" + id + "” is not an id.");
			const [rows, stats, found] = await Promise.all([ask("msg_mailings?id=eq." + id, { signal }), ask("rpc/msg_mailing_stats?id=" + id, { signal }),
				call("msg_mailing_messages?select=client_id::text,phone,message_id::text,status,attempts,due_at,text,last_error", { id, status, after, limit: page + 1 }, signal)]);
			if (!rows.length || !stats.length) {
				element.replaceChildren(h("p", {}, "There is no mailing " + id + ". It may have been deleted."));
				return;
			}
			const [g, s] = [rows[0], stats[0]];
			latest = g;
			if (!list.isConnected) element.replaceChildren(head, place, facts, h("h3", {}, "Progress"), bar, sentence, h("h3", {}, "Statistics"), framed(statistics), h("h3", {}, "Messages" + (status ? ": " + status : "")), framed(list), pages);
			act(g);
			facts.replaceChildren(...[["Text", g.text], ["Channel", g.channel], ["Begins", at(g.starts_at)], ["Ends", at(g.ends_at)], ["To", who(g)], ["Each day, by the client's clock", hours(g)]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
			const gone = s.clients - s.scheduled - s.idle - s.retry;
			bar.value = s.clients ? gone / s.clients : 0;
			const text = progress(g, s, gone);
			if (sentence.textContent !== text) sentence.textContent = text;
			statistics.show([...statuses, "purged"].filter((name) => s[name] > 0).map((name) => ({ name, n: s[name], share: s[name] / s.clients })), (r) => r.name,
				(r) => [r.name === "purged" ? "purged" : h("a", { href: address({ status: r.name }), data: { act: "status" } }, badge(r.name)), count(r.n), (100 * r.share).toFixed(1) + " %"], g.status === "planned" ? "It has not begun." : "No client is meant by it.");
			const some = found.slice(0, page);
			list.show(some, (m) => m.client_id, (m) => [m.client_id, m.phone || "(dropped)", m.status ? h("a", { href: "#/message/" + m.message_id, data: { act: "open" } }, m.message_id) : m.message_id, m.status ? badge(m.status) : "purged",
				m.attempts ?? none, at(m.due_at), short(m.text, 80), m.last_error ? h("span", { title: m.last_error }, short(m.last_error)) : none], "No message" + (status ? " is " + status : "") + (after === "0" ? "." : " after this client."));
			links(pages, [status && ["Of any status", address({})], after !== "0" && ["First", address({ status })], found.length > page && ["Next", address({ status, after: some[page - 1].client_id })]].filter(Boolean));
		},
	};
}
