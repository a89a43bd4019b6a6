//! `windlass get`

use std::io::Write;

use reconciler::foreign;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    args::{GetArgs, GetFormat},
    client::{Client, query, segment},
    exit::{CliError, Exit},
    output::complain,
    table::{self, GetTable, Style, Widths},
    yaml,
};
use crate::http::api::{RESOURCES, Resource};

/// Prints the requested objects, or their changes.
pub(super) async fn run(
    client: &Client,
    args: &GetArgs,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let (resources, name) = wanted(args)?;
    if args.watch {
        return match resources.as_slice() {
            [resource] => watch(client, args, resource, name, out).await,
            _ => Err(CliError::Usage(
                "only one kind can be watched at a time: run a `get --watch` for each".to_owned(),
            )),
        };
    }
    match args.output {
        None | Some(GetFormat::Wide) => tables(client, args, &resources, name, out).await,
        Some(format) => objects(client, args, &resources, name, format, out).await,
    }
}

/// The requested kinds, and the name if one object is requested.
fn wanted(args: &GetArgs) -> Result<(Vec<&'static Resource>, Option<&str>), CliError> {
    let unknown = |word: &str| {
        let kinds: Vec<&str> = RESOURCES.iter().map(|resource| resource.plural).collect();
        CliError::Usage(format!(
            "`{word}` is not a known kind: the kinds are {} and all",
            kinds.join(", ")
        ))
    };
    let (kinds, name) = match (args.kind.split_once('/'), &args.name) {
        (Some((kind, name)), None) => (kind, Some(name)),
        (Some(_), Some(_)) => {
            return Err(CliError::Usage(
                "the name is given twice: use KIND/NAME, or KIND NAME".to_owned(),
            ));
        }
        (None, name) => (args.kind.as_str(), name.as_deref()),
    };

    let mut resources = Vec::new();
    for word in kinds.split(',') {
        if word == "all" {
            resources.extend(RESOURCES.iter().filter(|resource| resource.all));
        } else {
            resources.push(Resource::of_word(word).ok_or_else(|| unknown(word))?);
        }
    }

    if let Some(name) = name {
        segment(name)?;
        if resources.len() != 1 || args.all_namespaces {
            return Err(CliError::Usage(
                "a name needs one kind, and a namespace instead of --all-namespaces".to_owned(),
            ));
        }
    }
    segment(&args.namespace)?;
    Ok((resources, name))
}

fn path(args: &GetArgs, resource: &Resource, name: Option<&str>) -> String {
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let filter = query(&[
        ("labelSelector", args.selector.clone()),
        ("fieldSelector", args.field_selector.clone()),
    ]);
    format!("{}{filter}", resource.path(namespace, name))
}

/// The prefix of names, such as `deployment.apps`, as kubectl prints it.
fn prefix(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.singular.to_owned()
    } else {
        format!("{}.{}", resource.singular, resource.group)
    }
}

async fn tables(
    client: &Client,
    args: &GetArgs,
    resources: &[&Resource],
    name: Option<&str>,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let mut printed = false;
    for resource in resources {
        let table = client.get_table(&path(args, resource, name)).await?;
        if table.rows.is_empty() {
            continue;
        }
        if printed {
            writeln!(out)?;
        }
        printed = true;
        let style = style(args, resource, resources.len() > 1);
        let (heading, lines) = (table::heading(&table, &style), table::lines(&table, &style));
        let mut widths = Widths::default();
        widths.fit(&heading);
        lines.iter().for_each(|line| widths.fit(line));
        widths.line(&heading, out)?;
        for line in &lines {
            widths.line(line, out)?;
        }
    }

    if !printed {
        let place =
            match args.all_namespaces || resources.iter().all(|resource| !resource.namespaced) {
                true => String::new(),
                false => format!(" in {} namespace", args.namespace),
            };
        complain(&format!("No resources found{place}."));
    }
    Ok(Exit::Done)
}

fn style(args: &GetArgs, resource: &Resource, several: bool) -> Style {
    Style {
        wide: args.output == Some(GetFormat::Wide),
        namespaces: args.all_namespaces && resource.namespaced,
        prefix: several.then(|| prefix(resource)),
    }
}

async fn objects(
    client: &Client,
    args: &GetArgs,
    resources: &[&Resource],
    name: Option<&str>,
    format: GetFormat,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let mut answers = Vec::new();
    for resource in resources {
        let answer = client.get_exact(&path(args, resource, name)).await?;
        if format == GetFormat::Name {
            for item in items(&answer) {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                writeln!(out, "{}/{}", prefix(resource), foreign::escape(name))?;
            }
        }
        answers.push(answer);
    }

    let whole = match answers.len() {
        1 if name.is_some() => answers.swap_remove(0),
        _ => {
            let all: Vec<&Value> = answers.iter().flat_map(items).collect();
            json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": all })
        }
    };
    match format {
        GetFormat::Json => super::status::json(&whole, out)?,
        GetFormat::Yaml => write!(out, "{}", yaml::text(whole)?)?,
        GetFormat::Name | GetFormat::Wide => {}
    }
    Ok(Exit::Done)
}

/// An event of a watch of a table.
#[derive(Deserialize)]
struct TableEvent {
    object: GetTable,
}

/// The items of a list, or the object itself.
fn items(answer: &Value) -> &[Value] {
    match answer.get("items") {
        Some(Value::Array(items)) => items,
        _ => std::slice::from_ref(answer),
    }
}

async fn watch(
    client: &Client,
    args: &GetArgs,
    resource: &Resource,
    name: Option<&str>,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    if !matches!(args.output, None | Some(GetFormat::Wide)) {
        return Err(CliError::Usage(
            "--watch prints a table: leave out -o, or use -o wide".to_owned(),
        ));
    }
    let field = name
        .map(|name| format!("metadata.name={name}"))
        .or_else(|| args.field_selector.clone());
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let query = |watch: Option<String>| {
        query(&[
            ("labelSelector", args.selector.clone()),
            ("fieldSelector", field.clone()),
            ("watch", watch.clone().map(|_| "true".to_owned())),
            ("resourceVersion", watch),
        ])
    };
    let path = resource.path(namespace, None);

    let style = style(args, resource, false);
    let mut widths = Widths::default();
    let mut headed = false;
    let mut print = |table: &GetTable, out: &mut dyn Write| -> std::io::Result<()> {
        let lines = table::lines(table, &style);
        lines.iter().for_each(|line| widths.fit(line));
        if !headed && !table.rows.is_empty() {
            headed = true;
            let heading = table::heading(table, &style);
            widths.fit(&heading);
            widths.line(&heading, out)?;
        }
        lines.iter().try_for_each(|line| widths.line(line, out))?;
        out.flush()
    };

    // The present objects are listed first, so that the columns are wide enough for all of them.
    let list = client.get_table(&format!("{path}{}", query(None))).await?;
    print(&list, out)?;
    let version = list.metadata.resource_version;
    if version.is_empty() {
        let why = "the daemon's list has no resourceVersion, so it cannot be watched".to_owned();
        return Err(CliError::Broken(why));
    }

    let mut events = client
        .stream(&format!("{path}{}", query(Some(version))), table::ACCEPT)
        .await?;
    while let Some(event) = events.line::<TableEvent>().await? {
        print(&event.object, out)?;
    }
    Ok(Exit::Done)
}
