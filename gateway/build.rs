//! Builds the C++ side of the `rados` feature.

fn main() {
    println!("cargo::rerun-if-changed=src/rados/shim.cc");
    #[cfg(feature = "rados")]
    {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .file("src/rados/shim.cc")
            .compile("tierdav-rados");
        println!("cargo::rustc-link-lib=rados");
    }
}
