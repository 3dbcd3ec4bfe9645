// The description of the interface, from openapi.json alone: nothing comes from another host.

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

function listed(pairs) {
  return make("dl", "", ...pairs.flatMap(([name, text]) => [make("dt", name), make("dd", text || "–")]));
}

// The properties of a schema, those of the schemas it refers to under their path.
function fields(schema, all, path = "") {
  if (schema.$ref) return fields(all[schema.$ref.split("/").pop()], all, path);
  if (schema.anyOf) return fields(schema.anyOf[0], all, path);
  if (schema.items && !schema.properties) return fields(schema.items, all, `${path}[]`);
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const own = path ? `${path}.${name}` : name;
    return [[own, property.description ?? property.type ?? ""], ...fields(property, all, own)];
  });
}

const about = await (await fetch("openapi.json")).json();
const schemas = about.components?.schemas ?? {};
const host = new URL(".", location).href.slice(0, -1); // behind a proxy it may have a path
const examples = {
  "/v1/predict": `curl -F images=@photo.jpg ${host}/v1/predict\n` +
    `curl -F images=@one.png -F images=@two.png '${host}/v1/predict?detector=none'\n` +
    `curl -H 'Content-Type: application/json' -d '{"images": ["BASE64"], "boxes": [[[40, 32, 96, 96]]]}' ${host}/v1/predict`,
};
for (const [path, methods] of Object.entries(about.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const code = make("code", `${method.toUpperCase()} ${path}`);
    const section = make("section", "", make("h2", "", code), make("p", route.description));
    section.append(make("pre", examples[path] ?? `curl ${host}${path}`));
    const parameters = (route.parameters ?? []).map((one) => [`?${one.name}`, one.description]);
    if (parameters.length) section.append(make("h3", "In the address"), listed(parameters));
    for (const [type, { schema }] of Object.entries(route.requestBody?.content ?? {})) {
      section.append(make("h3", `Body, ${type}`), listed(fields(schema, schemas)));
    }
    const answers = Object.entries(route.responses ?? {});
    const answer = route.responses?.["200"]?.content?.["application/json"]?.schema;
    const found = answer ? fields(answer, schemas) : [];
    if (found.length) section.append(make("h3", "Answer"), listed(found));
    section.append(make("h3", "Status"), listed(answers.map(([status, { description }]) => [status, description])));
    document.getElementById("routes").append(section);
  }
}
