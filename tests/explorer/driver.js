// Drives the explorer inside a frame of the same origin; the outcome goes into the title.
const frame = document.body.appendChild(document.createElement("iframe"));
const failures = [];
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function watch() {
  const page = frame.contentWindow;
  page.addEventListener("error", (event) => failures.push(event.message));
  page.document.addEventListener("securitypolicyviolation", (event) => failures.push(event.violatedDirective));
}

// Loads an address (or does what loads one) and returns its document.
async function visit(go, width = 1300) {
  frame.style.width = `${width}px`;
  frame.style.height = "1600px";
  const loaded = new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }));
  if (typeof go === "string") frame.src = go;
  else go();
  await loaded;
  watch();
  return frame.contentDocument;
}

async function until(test) {
  for (let i = 0; i < 200; i++) {
    if (test()) return true;
    await wait(50);
  }
  return false;
}

async function audit(page) {
  if (!AXE) return null;
  const tag = page.createElement("script");
  tag.textContent = AXE;
  page.head.append(tag);
  const found = await frame.contentWindow.axe.run(page, { resultTypes: ["violations"] });
  return found.violations.map((one) => `${one.impact} ${one.id}: ${one.nodes[0].html.slice(0, 120)}`);
}

async function drive() {
  const seen = {};
  let page = await visit("/");
  page.querySelector('[data-element="Mn"]').click();
  page.querySelector('[data-element="O"]').click();
  seen.picked = page.querySelector("[name=elements]").value;
  page = await visit(() => page.querySelector("form.filters button.main").click());
  seen.address = frame.contentWindow.location.search;
  seen.pressed = page.querySelector('[data-element="Mn"]').getAttribute("aria-pressed");

  const boxes = [...page.querySelectorAll("#selection [name=id]")].slice(0, 2);
  boxes.forEach((box) => box.click());
  page = await visit(() => page.querySelector("[formaction='/compare']").click());
  seen.compared = page.querySelectorAll(".side .viewer circle.atom").length > 0 && page.querySelectorAll("h2 a").length;

  page = await visit(CRYSTAL);
  const caption = page.querySelector("figcaption");
  const button = (text) => [...page.querySelectorAll("button")].find((one) => one.textContent === text);
  const radius = () => Number(page.querySelector(".viewer circle.atom").getAttribute("r"));
  const key = (name) => page.querySelector(".viewer").dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key: name, bubbles: true }));
  const small = radius();
  key("+");
  seen.grown = radius() > small;
  key("0");
  seen.back = radius() === small;
  button("polyhedra").click();
  seen.faces = page.querySelectorAll(".viewer polygon.face").length;
  button("primitive").click();
  seen.primitive = await until(() => caption.textContent.startsWith("primitive cell, 2 atoms"));
  button("supercell").click();
  seen.supercell = await until(() => caption.textContent.startsWith("2 × 2 × 2 supercell, 16 atoms"));
  const bands = page.querySelector("svg.bands").getBoundingClientRect();
  const click = { clientX: bands.left + 0.4 * bands.width, clientY: bands.top + 0.2 * bands.height, bubbles: true };
  page.querySelector("svg.bands").dispatchEvent(new frame.contentWindow.MouseEvent("click", click));
  seen.mode = await until(() => /^Mode [1-6] at q/.test(caption.textContent));
  seen.said = caption.textContent;
  const places = () => [...page.querySelectorAll(".viewer circle.atom")].map((atom) => atom.getAttribute("cx")).join();
  const before = places();
  seen.moves = await until(() => places() !== before);
  seen.marked = page.querySelector("svg.bands .here") !== null;
  const names = [...page.querySelectorAll(".tools")].at(-1).querySelectorAll("button");
  names[1].click();
  seen.keyboard = await until(() => caption.textContent.startsWith("Mode 1 at q"));

  page = await visit("/scatter?x=nsites&y=formation_energy_ev_per_atom&colour=novel");
  const kind = page.querySelector("[data-hides]");
  kind.click();
  seen.hidden = [...page.querySelectorAll(`svg.scatter ${kind.dataset.hides}`)].every((dot) => dot.style.display === "none");
  page = await visit(() => page.querySelector("svg.scatter a:not([style]) circle").dispatchEvent(new frame.contentWindow.MouseEvent("click", { bubbles: true, cancelable: true })));
  seen.through = frame.contentWindow.location.pathname.startsWith("/candidate/");

  page = await visit(CAMPAIGN);
  const box = [...page.querySelectorAll("svg.flow a")].find((one) => one.textContent.startsWith("relax chgnet"));
  page = await visit(() => box.dispatchEvent(new frame.contentWindow.MouseEvent("click", { bubbles: true, cancelable: true })));
  const failed = [...page.querySelectorAll("tbody tr")].find((row) => row.textContent.includes("failed"));
  page = await visit(() => failed.querySelector("a").click());
  seen.job = page.querySelector("h1").textContent;
  const folded = [...page.querySelectorAll("details")].find((one) => one.textContent.startsWith("Traceback"));
  const shown = () => folded.querySelector("pre").checkVisibility();
  seen.folded = !shown();
  folded.querySelector("summary").click();
  seen.unfolded = shown();
  seen.command = page.querySelector("[data-copy]").dataset.copy;

  page = await visit("/?sort=energy_above_hull", 1300);
  const table = page.querySelector(".scroll");
  seen.cut = table.scrollWidth - table.clientWidth;

  seen.wide = {};
  seen.audit = {};
  for (const address of PAGES) {
    page = await visit(address, 390);
    const over = page.documentElement.scrollWidth;
    if (over > 390) seen.wide[address] = over;
    const found = await audit(page);
    if (found?.length) seen.audit[address] = found;
  }
  return seen;
}

drive().then(
  (seen) => (document.title = JSON.stringify({ ...seen, failures })),
  (error) => (document.title = JSON.stringify({ broken: String(error.stack ?? error), failures })),
);
