// Elements, tables, dialogs. Whatever comes from data goes in as text: nothing here, or anywhere on this page, parses HTML.

// h(TAG, PROPERTIES, CHILDREN…): an element. on… are listeners, true and false set and leave out an attribute, data is the dataset.
export function h(tag, properties, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(properties || {})) {
		if (value === false || value === null || value === undefined) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name === "data") Object.assign(element.dataset, value);
		else if (name === "value") element.value = value;
		else element.setAttribute(name, value === true ? "" : value);
	}
	for (const child of children.flat()) if (child !== null && child !== undefined && child !== false) element.append(child);
	return element;
}

export const $ = (id) => document.getElementById(id);

// standIn(BUTTON): itself, or, where its row has changed since, the one for the same in the new row.
function standIn(element) {
	let row = element.closest("tr");
	while (row?.replacement) row = row.replacement;
	return element.isConnected ? element : row?.querySelector('[data-act="' + element.dataset.act + '"]');
}

// A button whose listener runs once at a time; what it throws is shown.
export function button(text, act, properties) {
	const element = h("button", { type: "button", ...properties }, text);
	element.addEventListener("click", async () => {
		element.setAttribute("aria-busy", "true");
		element.disabled = true;
		try {
			await act(element);
		} catch (error) {
			if (error.name !== "AbortError") say(error.message + (error.hint ? " (" + error.hint + ")" : ""), true);
		} finally {
			element.disabled = false;
			element.removeAttribute("aria-busy");
			// a disabled button loses the focus
			if (document.activeElement === document.body) standIn(element)?.focus();
		}
	});
	return element;
}

// say(TEXT, BAD): what came of an action, for eyes and screen readers.
export function say(text, bad) {
	const place = $("notice");
	place.replaceChildren();
	place.className = bad ? "bad" : "";
	if (text) place.append(h("span", {}, (bad ? "Not done: " : "") + text), h("button", { type: "button", "aria-label": "Dismiss", onclick: () => say("") }, "×"));
}

// goTo(ADDRESS, TEXT): another section, and what came of an action, to be said there.
let parting = "";
export function goTo(address, text) {
	parting = text;
	location.hash = address;
}
export function arrived() {
	say(parting);
	parting = "";
}

// table(CAPTION, COLUMNS): a table whose rows show() sets; a column is a heading, or [heading, class, whether the heading is not to be seen].
// The roles stand there because a phone shows rows as cards, and so loses the table's own.
export function table(caption, columns) {
	const heads = columns.map((c) => (Array.isArray(c) ? c : [c, ""]));
	const body = h("tbody", { role: "rowgroup" });
	const element = h("table", { role: "table" }, h("caption", { class: "unseen" }, caption),
		h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map(([text, name, hidden]) => h("th", { scope: "col", role: "columnheader", class: name }, hidden ? h("span", { class: "unseen" }, text) : text)))), body);
	const kept = new Map();
	// show(ITEMS, KEY, CELLS, EMPTY): rows of items that did not change stay as they are, so that focus and selection do too; so no cell says how long ago something was.
	// EMPTY is what is said where there is no item.
	element.show = (items, key, cells, empty) => {
		const wanted = items.map((item) => [String(key(item)), JSON.stringify(item), item]);
		if (!items.length) {
			if (body.querySelector(".empty")?.textContent !== empty) body.replaceChildren(h("tr", { role: "row", class: "empty" }, h("td", { role: "cell", colspan: columns.length }, empty)));
			kept.clear();
			return;
		}
		body.querySelector(".empty")?.remove();
		const names = new Set(wanted.map(([name]) => name));
		for (const [name, row] of kept) if (!names.has(name)) { row.remove(); kept.delete(name); }
		let last = null;
		for (const [name, text, item] of wanted) {
			let row = kept.get(name);
			if (!row || row.dataset.text !== text) {
				const fresh = h("tr", { role: "row", data: { text } }, cells(item).map((cell, i) => h("td", { role: "cell", class: heads[i][1], data: { label: heads[i][0] } }, cell ?? "")));
				if (row) {
					const focused = row.contains(document.activeElement) && document.activeElement.dataset.act;
					row.replaceWith(fresh);
					row.replacement = fresh;
					if (focused) fresh.querySelector('[data-act="' + focused + '"]')?.focus();
				}
				kept.set(name, row = fresh);
			}
			if ((last ? last.nextSibling : body.firstChild) !== row) last ? last.after(row) : body.prepend(row);
			last = row;
		}
	};
	return element;
}

// framed(TABLE): a wide table scrolls in its frame, by the keyboard too.
export const framed = (element) => h("div", { class: "frame", tabindex: "0", role: "region", "aria-label": element.caption.textContent }, element);

// dialog(TITLE, CONTENT, ACTIONS): a modal window. An action is [text, value, class]; the promise is the value of the one chosen, null for Escape and
// for an action without a value, or, for the value "submit", the fields of the content by their names.
export function dialog(title, content, actions) {
	return new Promise((resolve) => {
		const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), content,
			// only the one that does something is the form's own, which the Enter key presses
			h("div", { class: "actions" }, actions.map(([text, value, name]) => h("button", { type: value ? "submit" : "button", value, class: name, onclick: value ? null : () => window.close() }, text))));
		const window = h("dialog", { "aria-labelledby": "dialog-title" }, form);
		window.addEventListener("close", () => {
			resolve(window.returnValue === "submit" ? Object.fromEntries(new FormData(form)) : window.returnValue || null);
			window.remove();
		});
		document.body.append(window);
		window.showModal();
	});
}

// sure(TITLE, TEXT, VERB): whether the user wants that.
export const sure = async (title, text, verb) => (await dialog(title, h("p", {}, text), [["No, go back", ""], [verb, "yes", "strong"]])) === "yes";

// field(LABEL, INPUT, HINT): an input with its label.
export function field(label, input, hint) {
	const id = "f-" + input.name;
	input.id = id;
	if (hint) input.setAttribute("aria-describedby", id + "-hint");
	return h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("small", { id: id + "-hint" }, hint));
}

export const choice = (name, options, value) => {
	const element = h("select", { name }, options.map(([v, text]) => h("option", { value: v }, text)));
	element.value = value ?? "";
	return element;
};

// links(PLACE, [TEXT, ADDRESS]…): links of a place that is asked again and again; nothing changes, focus least of all, where they do not.
export function links(place, wanted) {
	const text = JSON.stringify(wanted);
	if (place.dataset.links === text) return;
	place.dataset.links = text;
	const focused = place.contains(document.activeElement) && document.activeElement.textContent;
	place.replaceChildren(...wanted.map(([label, href]) => h("a", { href, class: "button" }, label)));
	if (focused) [...place.children].find((a) => a.textContent === focused)?.focus();
}

// A status in a word and a sign, so that its colour is not all there is.
const signs = { scheduled: "◷", idle: "○", sent: "→", received: "✓", retry: "↻", delivered: "✓✓", dead: "✗", cancelled: "⊘", expired: "⌛" };
export const badge = (status) => h("span", { class: "badge " + status }, h("span", { "aria-hidden": "true" }, signs[status] || "•"), " " + status);

// Copy text; where the page is not a secure context there is no clipboard but this old way.
export async function copy(text, what) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {
		const area = h("textarea", { class: "unseen", value: text });
		document.body.append(area);
		area.select();
		const done = document.execCommand("copy");
		area.remove();
		if (!done) throw new Error("the browser does not let this page copy");
	}
	say(what + " copied.");
}
