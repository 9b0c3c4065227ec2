//! Generates the gRPC code from every `.proto` file under `soloist/v1`, without needing `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// The folder whose `.proto` files make up the package `soloist.v1`.
const PACKAGE: &str = "soloist/v1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PACKAGE}");
    let mut protos = Vec::new();
    for entry in fs::read_dir(PACKAGE)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            println!("cargo:rerun-if-changed={}", path.display());
            protos.push(path);
        }
    }
    // The order of a folder listing is arbitrary; the descriptor set should not be.
    protos.sort();

    let descriptors = protox::compile(&protos, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    fs::write(out.join("soloist_v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
