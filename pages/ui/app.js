// The operator's page: signs in with a token, then shows msg_backlog and msg_workers, every two seconds while it is looked at.
"use strict";
const root = location.pathname.replace(/ui\/[^/]*$/, "");
const every = 2000;
const $ = (id) => document.getElementById(id);
let timer = null;

// ask(PATH): rows of a view. The token never leaves this origin.
async function ask(path) {
	const answer = await fetch(root + path, { headers: { Authorization: "Bearer " + sessionStorage.getItem("token"), Accept: "application/json" }, cache: "no-store" });
	const body = await answer.json();
	if (!answer.ok) throw Object.assign(new Error(body.message || answer.statusText), { status: answer.status });
	return body;
}

// fill(SECTION, ROWS): cells as text, never as HTML; a cell is [text, class].
function fill(section, rows) {
	const body = document.createElement("tbody");
	for (const row of rows) {
		const line = body.insertRow();
		for (const cell of row) {
			const [text, name] = Array.isArray(cell) ? cell : [cell, ""];
			const place = line.insertCell();
			place.textContent = text ?? "";
			place.className = name;
		}
	}
	$(section).querySelector("tbody").replaceWith(body);
	$(section).hidden = false;
}

const count = (n) => [n === null || n === undefined ? "" : Number(n).toLocaleString(), "number"];
const well = ["idle", "busy", "paused", "no broker set"];

async function refresh() {
	clearTimeout(timer);
	if (document.hidden || !sessionStorage.getItem("token")) return;
	try {
		const [backlog, workers] = await Promise.all([ask("msg_backlog?order=channel,status"), ask("msg_workers?order=stage,worker")]);
		fill("backlog", backlog.length ? backlog.map((r) => [r.channel, r.status, count(r.count), (r.oldest_age || "").replace(/\.\d+$/, "")]) : [["Nothing waits."]]);
		fill("workers", workers.map((r) => [r.stage, count(r.worker), [r.state, well.includes(r.state) ? "" : "bad"], count(r.sent), count(r.received), count(r.delivered), r.last_error]));
		$("state").textContent = "As of " + new Date().toLocaleTimeString();
		$("state").className = "";
	} catch (error) {
		if (error.status === 401 || error.status === 403) return leave(error.message);
		$("state").textContent = "No answer: " + error.message;
		$("state").className = "bad";
	}
	timer = setTimeout(refresh, every);
}

function enter() {
	const signed = Boolean(sessionStorage.getItem("token"));
	$("enter").hidden = signed;
	$("leave").hidden = !signed;
	if (signed) refresh();
	else $("token").focus();
}

function leave(why) {
	clearTimeout(timer);
	sessionStorage.removeItem("token");
	$("backlog").hidden = $("workers").hidden = true;
	$("state").textContent = "";
	$("refusal").textContent = why || "";
	enter();
}

$("enter").addEventListener("submit", (event) => {
	event.preventDefault();
	sessionStorage.setItem("token", $("token").value.trim());
	$("token").value = $("refusal").textContent = "";
	enter();
});
$("leave").addEventListener("click", () => leave());
document.addEventListener("visibilitychange", refresh);
enter();
