import { type Cell, median } from './results.ts';

const WIDTH = 860;
const LABEL_WIDTH = 110;
const VALUE_WIDTH = 190;
const BAR_HEIGHT = 20;
const STEP = 27;
const COLORS: Readonly<Record<string, string>> = { ours: '#0a7d4b', floor: '#9aa5b1' };

/** A bar a contender, by objects a second: a panel for each size and concurrency. SVG that needs nothing else. */
export function chartOf(cells: readonly Cell[]): string {
  let y = 10;
  const panels = cells.map((cell) => {
    const { drawing, height } = panelOf(cell, y);
    y += height;
    return drawing;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" font-family="sans-serif" font-size="13">`,
    `<rect width="${WIDTH}" height="${y}" fill="#fff"/>`,
    ...panels,
    '</svg>\n',
  ].join('\n');
}

function panelOf({ size, concurrency, rounds }: Cell, top: number): { drawing: string; height: number } {
  const names = [...new Set(rounds.map(({ contender }) => contender))];
  const bars = names
    .map((name) => {
      const mine = rounds.filter(({ contender }) => contender === name);
      return {
        name,
        rate: median(mine.map(({ objects, seconds }) => objects / seconds)),
        cpuMs: median(mine.map(({ objects, cpuMs }) => cpuMs / objects)),
      };
    })
    .sort((one, other) => other.rate - one.rate);
  const most = Math.max(...bars.map(({ rate }) => rate));
  const room = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
  const lines = bars.map(({ name, rate, cpuMs }, index) => {
    const y = top + 34 + index * STEP;
    const width = Math.max(1, (room * rate) / most);
    const text = `${Math.round(rate).toLocaleString('en')}/s · ${cpuMs.toFixed(2)} ms CPU`;
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${y + 15}" text-anchor="end"${name === 'ours' ? ' font-weight="bold"' : ''}>${name}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${width.toFixed(1)}" height="${BAR_HEIGHT}" fill="${COLORS[name] ?? '#4a78b5'}"/>`,
      `<text x="${(LABEL_WIDTH + width + 8).toFixed(1)}" y="${y + 15}">${text}</text>`,
    ].join('');
  });
  const title = `<text x="${LABEL_WIDTH}" y="${top + 18}" font-weight="bold">${size}, ${concurrency} at a time: objects a second, CPU time an object</text>`;
  return { drawing: [title, ...lines].join('\n'), height: 34 + bars.length * STEP + 18 };
}
