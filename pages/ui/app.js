// The operator's page: signing in, the sections and their addresses, and the beat of every two seconds while the page is looked at.
import { $, arrived, h, say } from "./dom.js";
import { onRefused, roleOfToken, token } from "./api.js";
import { forget } from "./metrics.js";
import { amOperator, banner, beat, now, onAgain } from "./pulse.js";
import channels from "./channels.js";
import failures from "./failures.js";
import mailing from "./mailing.js";
import mailings from "./mailings.js";
import message from "./message.js";
import messages from "./messages.js";
import overview from "./overview.js";
import runs from "./runs.js";

const every = 2000;			// ms
const share = 20;			// a section is asked again after so many times what its last answer took
// each makes {element, refresh(signal), end()} of what follows its name in the address
const sections = { overview: ["Overview", overview], channels: ["Channels", channels], messages: ["Messages", messages], message: ["Message", message], failures: ["Failures", failures], runs: ["Runs", runs],
	mailings: ["Mailings", mailings], mailing: ["Mailing", mailing] };
// what is asked is for the section that is shown, or for who is signed in
let fromForm = false, timer = null, section = null, controller = new AbortController(), signedIn = new AbortController(), beating = null;

// ---- the beat

// Only what changed is said again.
function complain(about, text) {
	if (about.trouble.textContent !== text) about.trouble.textContent = text;
}

async function refresh() {
	const mine = section, began = performance.now();
	if (!mine || began < mine.due) return;
	mine.due = Infinity;
	try {
		await mine.refresh(controller.signal);
		complain(mine, "");
	} catch (error) {
		if (error.name === "AbortError") return;
		complain(mine, error.status === 503 ? "This took the database too long: " + error.message + ". Ask for less." : "Not shown: " + error.message);
	} finally {
		// unless it was asked for anew meanwhile
		if (mine.due === Infinity) mine.due = performance.now() + Math.max(0, share * (performance.now() - began) - every);
	}
}

onAgain(() => {
	if (section) section.due = 0;
	return tick(true);
});

// tick(ONCE): a beat, also where live updates are off if it is asked for.
async function tick(once) {
	// one at a time
	while (beating) await beating;
	clearTimeout(timer);
	if (document.hidden || !token() || !section) return;
	if (once || $("live").checked) {
		let done;
		beating = new Promise((resolve) => { done = resolve; });
		try {
			await beat(signedIn.signal);
			await refresh();
			$("state").textContent = "As of " + new Date().toLocaleTimeString();
		} catch (error) {
			if (token() && error.name !== "AbortError") {
				banner([[error.status ? "msgsys refuses" : "msgsys does not answer", error.message + ". What is shown is old; this page tries again."]]);
				$("state").textContent = "No answer at " + new Date().toLocaleTimeString();
			}
		} finally {
			beating = null;
			done();
		}
	}
	clearTimeout(timer);
	timer = setTimeout(tick, every);
}

// ---- addresses

// What a window of another section asked is not answered here.
const closeDialogs = () => document.querySelectorAll("dialog").forEach((d) => d.close());

function show() {
	if (!token()) return;
	const [path, query] = (location.hash.replace(/^#\/?/, "") || "overview").split("?");
	const [wanted, ...rest] = path.split("/");
	const name = Object.hasOwn(sections, wanted) ? wanted : "overview";
	const [title, make] = sections[name];
	controller.abort();
	controller = new AbortController();
	section?.end?.();
	section = make(new URLSearchParams(query), ...rest);
	section.due = 0;
	section.trouble = h("p", { class: "bad", role: "alert" });
	closeDialogs();
	const heading = h("h2", { tabindex: "-1" }, section.title || title);
	const first = !$("section").firstChild;
	$("section").replaceChildren(heading, section.trouble, section.element);
	document.title = (section.title || title) + " – msgsys";
	for (const link of $("sections").children) {
		// one message is of the messages
		const current = ["#/" + name, "#/" + name + "s"].includes(link.hash);
		current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
	}
	arrived();
	// not at the page's first sight, where the browser has put the focus
	if (!first || fromForm) heading.focus();
	fromForm = false;
	tick(true);
}

// ---- signing in

async function enter() {
	const signed = Boolean(token());
	$("enter").hidden = signed;
	for (const id of ["leave", "sections", "live-label", "section"]) $(id).hidden = !signed;
	if (!signed) {
		document.title = "Sign in – msgsys";
		$("token").focus();
		return;
	}
	const mine = signedIn = new AbortController();
	try {
		now.operator = await amOperator(mine.signal);
	} catch (error) {
		if (!mine.signal.aborted) leave(error.status ? "The role of this token may not look: " + error.message : "msgsys does not answer: " + error.message);
		return;
	}
	if (mine.signal.aborted) return;
	$("who").textContent = roleOfToken() + (now.operator ? "" : " (may look, not act)");
	document.body.classList.toggle("reader", !now.operator);
	show();
}

function leave(why) {
	clearTimeout(timer);
	controller.abort();
	signedIn.abort();
	section?.end?.();
	section = null;
	sessionStorage.removeItem("token");
	closeDialogs();
	$("section").replaceChildren();
	$("state").textContent = $("who").textContent = "";
	forget();
	banner([]);
	say("");
	$("refusal").textContent = why || "";
	enter();
}

$("enter").addEventListener("submit", (event) => {
	event.preventDefault();
	const given = $("token").value.trim().replace(/^Bearer\s+/i, "");
	$("token").value = $("refusal").textContent = "";
	// what a header cannot hold is not asked about
	if (!/^[\x21-\x7e]+$/.test(given)) {
		$("refusal").textContent = "That is not a token: it has spaces, or letters that no token has.";
		return;
	}
	sessionStorage.setItem("token", given);
	fromForm = true;
	enter();
});
$("leave").addEventListener("click", () => leave());
$("live").addEventListener("change", () => tick());
onRefused((why) => leave("Signed out: " + why + "."));
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => tick());
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); $("main").focus(); });

// ---- light and dark

function theme(value) {
	if (value) document.documentElement.dataset.theme = value;
	else delete document.documentElement.dataset.theme;
	$("theme").value = value;
	dispatchEvent(new Event("theme"));
}
theme(localStorage.getItem("msgsys-theme") || "");
$("theme").addEventListener("change", () => { localStorage.setItem("msgsys-theme", $("theme").value); theme($("theme").value); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));

enter();
