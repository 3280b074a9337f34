//! `dav-server-peer PORT ROOT`: the dav-server crate over a directory.

use std::convert::Infallible;

use dav_server::{DavHandler, localfs::LocalFs, memls::MemLs};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(port), Some(root)) = (args.next(), args.next()) else {
        return Err("usage: dav-server-peer PORT ROOT".into());
    };
    let dav = DavHandler::builder()
        .filesystem(LocalFs::new(root, false, false, false))
        .locksystem(MemLs::new())
        .build_handler();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let dav = dav.clone();
        tokio::spawn(async move {
            let serve = service_fn(move |request| {
                let dav = dav.clone();
                async move { Ok::<_, Infallible>(dav.handle(request).await) }
            });
            // A client that goes away is no news.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), serve)
                .await;
        });
    }
}
