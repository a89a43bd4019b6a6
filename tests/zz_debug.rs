mod support;
#[path = "manifests/world.rs"]
mod world;
#[test]
fn hold() {
    let site = world::world();
    eprintln!("DIR {}", site.host.dir().display());
    while !std::path::Path::new("/tmp/svc-end").exists() {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
