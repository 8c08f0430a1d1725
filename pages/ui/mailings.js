// Mailings: a list, and the form for a new one, or for what is to be changed of one.
import { button, field, framed, goTo, h, links, table } from "./dom.js";
import { ask, call } from "./api.js";
import { at, short } from "./format.js";
import { now } from "./pulse.js";

const page = 50;

// who(MAILING), hours(MAILING): whom it is for, and when, in words.
export const who = (g) => [g.operator_codes && "operators " + g.operator_codes.join(", "), g.tags && "tags " + g.tags.join(", ")].filter(Boolean).join("; ") || "all clients";
const wholeDay = (g) => !g.window_from || (g.window_from === "00:00:00" && g.window_to === "24:00:00");
export const hours = (g) => (wholeDay(g) ? "all day" : g.window_from.slice(0, 5) + " to " + g.window_to.slice(0, 5));

// ---- the form

const words = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);
const moment = (text) => (text ? new Date(text).toISOString() : null);
// what the functions want of a field; an empty time is that of a whole day
const wanted = { operator_codes: words, tags: words, starts_at: moment, ends_at: moment, window_from: (text) => text || "00:00", window_to: (text) => text || "24:00" };

// A time as a field wants it: by the browser's clock, to the minute.
function local(text) {
	const time = new Date(text);
	return new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

// The fields' values for a mailing.
const valuesOf = (g) => ({
	text: g.text, channel: g.channel, starts_at: local(g.starts_at), ends_at: local(g.ends_at), operator_codes: (g.operator_codes || []).join(", "), tags: (g.tags || []).join(", "),
	// such a field ends with 23:59
	window_from: wholeDay(g) ? "" : g.window_from.slice(0, 5), window_to: wholeDay(g) ? "" : g.window_to.slice(0, 5).replace("24:00", "00:00"),
});

// What the server would refuse in its own words, in the field's: [name, complaint].
function mistake(f) {
	if (f.starts_at !== undefined && f.ends_at && f.ends_at <= (f.starts_at || local(new Date()))) return ["ends_at", "It ends before it begins."];
	if (Boolean(f.window_from) !== Boolean(f.window_to)) return [f.window_from ? "window_to" : "window_from", "Give both times, or none."];
	if (f.window_from && f.window_from === f.window_to) return ["window_to", "These are the same time. Leave both empty for all day."];
	return null;
}

// mailingForm(MAILING, VERB, ACT): a form for a new mailing (null), or a mailing's; ACT is called with the arguments of msg_mailing_create() or with those of
// msg_mailing_update() that differ. begun(G): it has begun, and what cannot be changed any more is as G says.
export function mailingForm(mailing, verb, act) {
	const old = mailing ? valuesOf(mailing) : { channel: "default" };
	const input = (name, properties) => h("input", { name, value: old[name], autocomplete: "off", ...properties });
	const channels = h("datalist", { id: "channels" });
	const inputs = {
		text: h("textarea", { name: "text", rows: "3", required: true, class: "wide", value: old.text }), channel: input("channel", { required: true, list: "channels" }),
		starts_at: input("starts_at", { type: "datetime-local", required: Boolean(mailing) }), ends_at: input("ends_at", { type: "datetime-local", required: true }),
		window_from: input("window_from", { type: "time" }), window_to: input("window_to", { type: "time" }), operator_codes: input("operator_codes"), tags: input("tags"),
	};
	const element = h("form", { class: "filters", novalidate: true }, channels, field("Text", inputs.text, "{phone}, {tag} and names of a client's attributes stand for these"), field("Channel", inputs.channel),
		field("Begins", inputs.starts_at, mailing ? "By your clock" : "By your clock; empty: now"), field("Ends", inputs.ends_at, "By your clock; nothing is sent after it"),
		field("From, each day", inputs.window_from, "By the client's clock"), field("Until, each day", inputs.window_to, "Both empty: all day"),
		field("Operator codes", inputs.operator_codes, "With commas; empty: any"), field("Tags", inputs.tags, "With commas; empty: any"));
	const send = button(verb, async () => {
		for (const one of Object.values(inputs)) one.setCustomValidity("");
		const given = Object.fromEntries(new FormData(element));
		const wrong = mistake(given);
		if (wrong) inputs[wrong[0]].setCustomValidity(wrong[1]);
		if (!element.reportValidity()) return;
		const whole = !given.window_from;
		const argument = Object.fromEntries(Object.entries(given).filter(([name, text]) => !mailing || text !== old[name]).map(([name, text]) => [name, wanted[name] ? wanted[name](text) : text]));
		await act(mailing ? argument : { ...argument, ...(whole && { window_from: null, window_to: null }) });
	}, { type: "submit", class: "strong" });
	for (const one of Object.values(inputs)) one.addEventListener("input", () => one.setCustomValidity(""));
	element.append(h("div", { class: "actions" }, send));
	element.addEventListener("submit", (event) => event.preventDefault());
	ask("msg_channel_settings?select=channel&order=channel").then((rows) => channels.replaceChildren(...rows.map((c) => h("option", { value: c.channel }))), () => { /* it is a help to type, no more */ });
	return {
		element,
		begun(g) {
			for (const name of ["channel", "starts_at"]) Object.assign(inputs[name], { value: valuesOf(g)[name], disabled: true });
		},
	};
}

// ---- the list

export default function mailings(params) {
	const list = table("Mailings", [["Mailing", "number"], "State", "Text", "Channel", "Begins", "Ends", "To", "Each day"]);
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	const before = params.get("before");
	const create = now.operator && mailingForm(null, "Create the mailing", async (argument) => {
		const id = await call("msg_mailing_create", argument);
		goTo("#/mailing/" + id, "The mailing is created.");
	});
	return {
		element: h("div", {}, create && h("details", { class: "write" }, h("summary", {}, "New mailing"), create.element), framed(list), pages),
		async refresh(signal) {
			const query = new URLSearchParams({ select: "id,status,text,channel,starts_at,ends_at,operator_codes,tags,window_from,window_to", order: "id.desc", limit: page + 1, ...(before && { id: "lt." + before }) });
			const found = await ask("msg_mailings?" + query, { signal });
			const rows = found.slice(0, page);
			list.show(rows, (g) => g.id, (g) => [h("a", { href: "#/mailing/" + g.id, data: { act: "open" } }, String(g.id)), g.status, short(g.text, 80), g.channel, at(g.starts_at), at(g.ends_at), who(g), hours(g)], "No mailing yet.");
			links(pages, [before && ["Newest", "#/mailings"], found.length > page && ["Older", "#/mailings?before=" + rows[page - 1].id]].filter(Boolean));
		},
	};
}
