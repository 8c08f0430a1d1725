// Requests to the facade. The token goes into the header Authorization of requests to this origin, and nowhere else: no cookie is used, so a
// page of somebody else's cannot make the browser act here in the user's name.
export const root = location.pathname.replace(/ui\/[^/]*$/, "");

// What the server refused, in its words.
export class Refusal extends Error {
	constructor(status, body) {
		super(body.message || "status " + status);
		Object.assign(this, { status, code: body.code, details: body.details, hint: body.hint });
	}
}

let refused = () => {};
export const onRefused = (callback) => { refused = callback; };
export const token = () => sessionStorage.getItem("token");

// ask(PATH, {method, body, headers, signal}): the answer as JSON, null for an empty one. Errors: Refusal; TypeError where nothing answers.
export async function ask(path, { method = "GET", body, headers, signal } = {}) {
	const used = token();
	const answer = await fetch(root + path, {
		method, signal, cache: "no-store", credentials: "omit", redirect: "error",
		headers: { Authorization: "Bearer " + used, Accept: "application/json", ...(body !== undefined && { "Content-Type": "application/json" }), ...headers },
		body: body === undefined ? undefined : JSON.stringify(body),
	});
	const text = await answer.text();
	let json = null;
	try { json = text ? JSON.parse(text) : null; } catch { throw new Refusal(answer.status, { message: "not an answer of msgsys" }); }
	if (!answer.ok) {
		const refusal = new Refusal(answer.status, json || {});
		// an answer to an older token says nothing of this one
		if (answer.status === 401 && used === token()) refused(refusal.message);
		throw refusal;
	}
	return json;
}

export const call = (name, argument, signal) => ask("rpc/" + name, { method: "POST", body: argument || {}, signal });

export async function metricsText(signal) {
	const answer = await fetch(root + "metrics", { signal, cache: "no-store", credentials: "omit" });
	if (!answer.ok) throw new Refusal(answer.status, {});
	return answer.text();
}

// The role that the token names, for people to see; the server alone decides what it may.
export function roleOfToken() {
	try {
		const claims = JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(token().split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0))));
		return typeof claims.role === "string" ? claims.role : "";
	} catch {
		return "";
	}
}
