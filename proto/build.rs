//! Compiles `holdfast/**/*.proto` to messages, gRPC stubs and canonical JSON, without protoc.
//!
//! Maps are ordered, so that one message always has one encoding (a claim compares bodies by hash).
//! Deliberately absent: a list of the files; a new one is found.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    find(&root.join("holdfast"), &mut files)?;
    files.sort();
    println!("cargo:rerun-if-changed=holdfast");

    let mut descriptors = protox::compile(&files, [&root])?;

    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names().btree_map(["."]);
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_fds_with_config(descriptors.clone(), config)?;

    pbjson_build::Builder::new()
        .register_descriptors(&descriptors.encode_to_vec())?
        .btree_map(["."])
        .build(&[".holdfast"])?;

    // Comments are for readers of the source; reflection does without.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

/// Collects every `.proto` below `dir`.
fn find(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
