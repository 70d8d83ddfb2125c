/**
 * The texts that occur in a text although they must not, named.
 *
 * @param secrets their names by what must not be found, as it is or encoded.
 * @param places the texts to look into, by name.
 */
export function leaksIn(secrets: ReadonlyMap<string, string>, places: ReadonlyMap<string, string>): string[] {
  return [...places].flatMap(([place, text]) =>
    [...secrets].flatMap(([secret, name]) =>
      [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64').slice(0, -4)].some((form) =>
        text.includes(form),
      )
        ? [`${name} in ${place}`]
        : [],
    ),
  );
}
