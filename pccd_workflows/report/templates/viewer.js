"use strict";
// Crystals turn, grow and move: the same projection as the first drawing (structure_view.py).
const pccd = (() => {
  const HINT = "drag or arrow keys turn, wheel or + and - zoom, 0 turns back";

  function rotation(aboutZ, tilt) {
    const [c, s, k, t] = [Math.cos(aboutZ), Math.sin(aboutZ), Math.cos(tilt), Math.sin(tilt)];
    return ([x, y, z]) => {
      const [u, v] = [c * x - s * y, s * x + c * y];
      return [u, k * z - t * v, -t * z - k * v];
    };
  }

  // Calls back with turns (radians) and zoom factors, from mouse, fingers, wheel and keys.
  function turnable(box, { turn, zoom, reset }) {
    const down = new Map();
    const gap = () => {
      const [a, b] = [...down.values()];
      return Math.hypot(a.x - b.x, a.y - b.y);
    };
    const at = (event) => ({ x: event.clientX, y: event.clientY });
    box.addEventListener("pointerdown", (event) => down.set(event.pointerId, at(event)));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) box.addEventListener(end, (event) => down.delete(event.pointerId));
    box.addEventListener("pointermove", (event) => {
      if (!down.has(event.pointerId)) return;
      const before = down.get(event.pointerId);
      const apart = down.size === 2 ? gap() : 0;
      down.set(event.pointerId, at(event));
      if (apart) zoom(gap() / apart);
      else turn((event.clientX - before.x) * 0.011, (event.clientY - before.y) * 0.011);
    });
    box.addEventListener("wheel", (event) => {
      if (document.activeElement !== box && !box.matches(":active")) return; // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 500));
    }, { passive: false });
    box.addEventListener("click", () => box.focus({ preventScroll: true }));
    box.addEventListener("dblclick", reset);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
      const factor = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 }[event.key];
      if (!step && !factor && event.key !== "0") return;
      event.preventDefault();
      if (step) turn(...step);
      else if (factor) zoom(factor);
      else reset();
    });
    box.title = HINT;
  }

  function viewer(box) {
    const group = box.querySelector("g.scene");
    const view = box.querySelector("svg").viewBox.baseVal;
    let scene, scale, aboutZ, tilt, timer;
    let grown = 1;
    let solid = false;

    function make(name, attributes) {
      const node = document.createElementNS(group.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return node;
    }

    // Atoms where they are at a phase of the mode that is shown; phase in radians.
    function places(phase) {
      const [c, s] = [Math.cos(phase), Math.sin(phase)];
      return scene.atoms.map((a, i) => {
        const m = scene.moves?.[i];
        return m ? [a.x + m[0] * c - m[3] * s, a.y + m[1] * c - m[4] * s, a.z + m[2] * c - m[5] * s] : [a.x, a.y, a.z];
      });
    }

    function draw(phase = 0) {
      const turn = rotation(aboutZ, tilt);
      const px = ([x, y]) => [(view.width / 2 + grown * scale * x).toFixed(2), (view.height / 2 - grown * scale * y).toFixed(2)];
      const items = [];
      const stick = (from, to, kind) => {
        const [[x1, y1], [x2, y2]] = [px(from), px(to)];
        items.push([(from[2] + to[2]) / 2 - 0.01, make("line", { x1, y1, x2, y2, class: kind })]);
      };
      const corners = scene.corners.map(turn);
      const atoms = places(phase).map(turn);
      for (let n = 0; n < 8; n++) for (const bit of [1, 2, 4]) if (!(n & bit)) stick(corners[n], corners[n | bit], "cell");
      for (const [i, j] of scene.bonds) stick(atoms[i], atoms[j], "bond");
      for (const [i, half] of scene.stubs) {
        const away = turn(half);
        stick(atoms[i], atoms[i].map((value, k) => value + away[k]), "bond stub");
      }
      if (solid) {
        for (const [symbol, ...face] of scene.faces) {
          const depth = face.reduce((sum, i) => sum + atoms[i][2], 0) / 3;
          items.push([depth, make("polygon", { points: face.map((i) => px(atoms[i]).join()).join(" "), fill: scene.colours[symbol], class: "face" })]);
        }
      }
      scene.atoms.forEach((a, i) => {
        const [cx, cy] = px(atoms[i]);
        const r = (a.radius * scale * grown).toFixed(2);
        items.push([atoms[i][2], make("circle", { cx, cy, r, fill: `url(#${box.dataset.name}-${a.symbol})`, class: "atom", "data-tip": a.symbol })]);
      });
      items.sort((one, other) => one[0] - other[0]);
      const labels = ["a", "b", "c"].map((label, i) => {
        const corner = corners[1 << i];
        const out = 17 / Math.max(Math.hypot(corner[0], corner[1]), 1e-9);
        const [left, top] = px(corner).map(Number);
        const node = make("text", { x: left + out * corner[0], y: top - out * corner[1] + 4, class: "tick", "text-anchor": "middle" });
        node.textContent = label;
        return node;
      });
      group.replaceChildren(...items.map((item) => item[1]), ...labels);
    }

    function show(next) {
      clearInterval(timer);
      scene = next;
      scale = (Math.min(view.width, view.height) / 2 - 18) / scene.reach;
      if (aboutZ === undefined) [aboutZ, tilt] = scene.view;
      draw();
      if (!scene.moves) return;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      const began = performance.now();
      if (!still) timer = setInterval(() => document.hidden || draw((performance.now() - began) / 250), 50);
      else draw(Math.PI / 4);
    }

    turnable(box, {
      turn: (dx, dy) => {
        aboutZ += dx;
        tilt = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, tilt - dy));
        draw();
      },
      zoom: (factor) => {
        grown = Math.max(0.4, Math.min(8, grown * factor));
        draw();
      },
      reset: () => {
        [aboutZ, tilt] = scene.view;
        grown = 1;
        draw();
      },
    });
    const button = box.parentNode.querySelector("button.solid");
    button?.addEventListener("click", () => {
      solid = !solid;
      button.setAttribute("aria-pressed", solid);
      draw();
    });
    show(JSON.parse(box.dataset.scene));
    box.show = show;
  }
  document.querySelectorAll(".viewer").forEach(viewer);

  // Phase diagrams of four elements turn; kinds of phases can be hidden.
  function solidDiagram(svg) {
    const view = svg.viewBox.baseVal;
    const marks = [...svg.querySelectorAll("[data-p]")].map((node) => [node, node.dataset.p.split(" ").map(Number)]);
    let [aboutZ, tilt, grown] = [...JSON.parse(svg.dataset.view), 1];
    const first = [aboutZ, tilt];
    function draw() {
      const turn = rotation(aboutZ, tilt);
      const px = (p) => {
        const [x, y] = turn(p);
        return [view.width / 2 + svg.dataset.reach * grown * x, view.height / 2 - svg.dataset.reach * grown * y];
      };
      const taken = [];
      for (const [node, p] of marks) {
        const [x, y] = px(p.slice(0, 3));
        const set = (values) => Object.entries(values).forEach(([key, value]) => node.setAttribute(key, value.toFixed(1)));
        if (node.tagName === "circle") set({ cx: x, cy: y });
        else if (node.tagName === "a") node.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
        else if (node.tagName === "line") {
          const [x2, y2] = px(p.slice(3));
          set({ x1: x, y1: y, x2, y2 });
        } else {
          set({ x: x + 9, y: y + 4 });
          const width = 8 * node.textContent.length;
          const free = taken.every(([left, size, base]) => x + 9 > left + size || left > x + 9 + width || Math.abs(base - y) > 13);
          node.style.display = free ? "" : "none"; // labels that overlap wait for another view
          if (free) taken.push([x + 9, width, y]);
        }
      }
    }
    turnable(svg, {
      turn: (dx, dy) => {
        aboutZ += dx;
        tilt -= dy;
        draw();
      },
      zoom: (factor) => {
        grown *= factor;
        draw();
      },
      reset: () => {
        [aboutZ, tilt, grown] = [...first, 1];
        draw();
      },
    });
    draw();
  }
  document.querySelectorAll("svg.solid").forEach(solidDiagram);

  // A legend's box hides the marks of its kind, in the figure that it belongs to.
  document.addEventListener("change", (event) => {
    const kind = event.target.dataset?.hides;
    if (!kind) return;
    const figure = event.target.closest("figure");
    figure.querySelectorAll(`svg.figure ${kind}`).forEach((node) => (node.style.display = event.target.checked ? "" : "none"));
  });

  return { viewer };
})();
