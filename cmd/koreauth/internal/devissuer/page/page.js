// The page of "koreauth issuer". Tokens are kept in this page alone: not in its URL,
// nor in cookies or storage.

const byId = (id) => document.getElementById(id);

/** send posts values to the issuer and returns the answer. */
async function send(path, values) {
	const response = await fetch(path, {
		method: "POST",
		headers: { "Content-Type": "application/json" },
		body: JSON.stringify(values),
		cache: "no-store",
		redirect: "error",
	});
	const type = response.headers.get("Content-Type") ?? "";
	const answer = type.startsWith("application/json") ? await response.json() : {};
	if (!response.ok) {
		throw new Error(answer.error ?? `the issuer answered ${response.status}`);
	}
	return answer;
}

/** element returns a new element with a class and a text. */
function element(name, className, text) {
	const made = document.createElement(name);
	made.className = className;
	made.textContent = text;
	return made;
}

/** showToken colors the segments of a token. */
function showToken(token) {
	const parts = token.split(".").map((text, n) => element("span", `segment${Math.min(n, 2)}`, text));
	byId("token").replaceChildren(...parts.flatMap((part, n) => (n === 0 ? [part] : [".", part])));
	showCurl();
}

/** quoted returns a text as one word of a shell. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function showCurl() {
	const header = `Authorization: Bearer ${byId("token").textContent}`;
	byId("curl").textContent = `curl -i ${quoted(byId("api").value)} -H ${quoted(header)}`;
}

/** row returns the row of a step. */
function row(step) {
	const unverified = !step.verified && step.name !== "form" && step.verdict !== "skipped";
	const made = document.createElement("tr");
	const name = element("th", "", step.name);
	name.scope = "row";
	name.append(element("span", "rule", step.rule));
	const found = element("td", "", (unverified ? "(unverified) " : "") + step.found);
	if (step.hint) {
		found.append(element("p", "hint", step.hint));
	}
	made.append(element("td", step.verdict, step.verdict), name, found, element("td", "", step.want));
	return made;
}

/** words returns the verdict on a token, and the class of its color. */
function words({ accepted, class: kind, reason, steps }) {
	if (accepted) {
		return ["Accepted", "pass"];
	}
	const failed = steps.some((step) => step.verdict === "fail");
	const text = [failed ? "Rejected" : "Not judged", kind, reason].filter(Boolean).join(": ");
	return [text, failed ? "fail" : "unknown"];
}

/** showExplanation shows how a token is judged, and first the hint for what failed first. */
function showExplanation(explanation) {
	const [text, color] = words(explanation);
	const cause = explanation.steps.find((step) => step.verdict === "fail" || step.verdict === "unknown");
	const verdict = byId("verdict");
	verdict.className = color;
	verdict.replaceChildren(element("strong", "", text));
	if (cause?.hint) {
		verdict.append(element("p", "hint", cause.hint));
	}
	byId("steps").replaceChildren(...explanation.steps.map(row));
	verdict.scrollIntoView({ block: "nearest" });
}

let latest = 0; // the number of the last request, whose answer is shown

/** show shows a token and its explanation, which a request returns. */
async function show(request) {
	const mine = ++latest;
	byId("result").hidden = true;
	byId("verdict").replaceChildren();
	const answer = await request;
	if (mine === latest) {
		showToken(answer.token);
		showExplanation(answer.explanation);
		byId("result").hidden = false;
	}
}

/** onSubmit calls an action for a form, and shows why it failed. */
function onSubmit(id, action) {
	byId(id).addEventListener("submit", async (event) => {
		event.preventDefault();
		const problem = byId("problem");
		problem.hidden = true;
		try {
			await action();
		} catch (error) {
			problem.textContent = error instanceof TypeError ? "The issuer cannot be reached: is it still running?" : error.message;
			problem.hidden = false;
		}
	});
}

onSubmit("mint", () => show(send("/page/token", {
	client: byId("client").value,
	lifetime: byId("lifetime").value,
	fault: byId("fault").value,
	requires: byId("requires").value,
	claims: byId("claims").value,
})));

onSubmit("explain", () => show(send("/page/explain", {
	token: byId("pasted").value,
	requires: byId("requires").value,
})));

onSubmit("endpoints", async () => {
	byId("applied").textContent = "";
	await send("/page/endpoints", { endpoints: byId("at").value, behavior: byId("behavior").value });
	const text = (id) => byId(id).selectedOptions[0].textContent;
	byId("applied").textContent = `Endpoints: ${text("at")}. Behavior: ${text("behavior")}.`;
});

byId("api").addEventListener("input", showCurl);

for (const button of document.querySelectorAll("[data-copy]")) {
	const news = button.previousElementSibling;
	button.addEventListener("click", async () => {
		const source = byId(button.dataset.copy);
		try {
			await navigator.clipboard.writeText(source.textContent);
			news.textContent = "Copied";
		} catch { // The browser does not allow it.
			getSelection().selectAllChildren(source);
			news.textContent = "Selected: press Ctrl+C";
		}
		setTimeout(() => news.textContent = "", 5000);
	});
}
