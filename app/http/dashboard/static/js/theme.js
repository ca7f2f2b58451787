// Light and dark: as the system has it, until somebody chooses.

const root = document.documentElement;
const listeners = new Set();
const system = matchMedia("(prefers-color-scheme: dark)");

export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function themeButton(button) {
  const show = () => {
    const other = root.dataset.theme === "dark" ? "Light" : "Dark";
    button.textContent = `${other} theme`;
  };
  button.addEventListener("click", () => {
    set(root.dataset.theme === "dark" ? "light" : "dark");
    try {
      localStorage.setItem("bursar-theme", root.dataset.theme);
    } catch {
      // It holds until the page is loaded again.
    }
  });
  listeners.add(show);
  show();
}

function set(theme) {
  root.dataset.theme = theme;
  for (const listener of listeners) listener();
}

system.addEventListener("change", () => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("bursar-theme");
  } catch {
    // As above.
  }
  if (chosen === null) set(system.matches ? "dark" : "light");
});

/** A colour of the theme that is on. */
export function colour(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

/** The colour of the nth series. */
export function seriesColour(index) {
  return colour(`c${(index % 8) + 1}`);
}
