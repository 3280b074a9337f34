//! Content types by file name extension.

/// Whether a browser that shows content of this type runs scripts in it.
pub fn may_have_scripts(content_type: &str) -> bool {
    content_type.starts_with("text/html")
        || matches!(
            content_type,
            "application/xhtml+xml" | "application/xml" | "image/svg+xml"
        )
}

/// The type of a resource by its name; unknown is `application/octet-stream`.
pub fn of(name: &str) -> &'static str {
    let ext = name
        .rsplit_once('.')
        .map_or("", |(stem, ext)| if stem.is_empty() { "" } else { ext });
    let mut lower = [0u8; 10];
    let Some(lower) = lower.get_mut(..ext.len()) else {
        return UNKNOWN;
    };
    lower.copy_from_slice(ext.as_bytes());
    lower.make_ascii_lowercase();
    match &*lower {
        b"txt" | b"log" | b"conf" | b"cfg" | b"ini" => "text/plain; charset=utf-8",
        b"md" => "text/markdown; charset=utf-8",
        b"htm" | b"html" => "text/html; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"csv" => "text/csv; charset=utf-8",
        b"js" | b"mjs" => "text/javascript; charset=utf-8",
        b"ics" => "text/calendar; charset=utf-8",
        b"vcf" => "text/vcard; charset=utf-8",
        b"json" => "application/json",
        b"ndjson" | b"jsonl" => "application/x-ndjson",
        b"xml" => "application/xml",
        b"yaml" | b"yml" => "application/yaml",
        b"toml" => "application/toml",
        b"wasm" => "application/wasm",
        b"pdf" => "application/pdf",
        b"zip" => "application/zip",
        b"gz" | b"tgz" => "application/gzip",
        b"bz2" => "application/x-bzip2",
        b"xz" => "application/x-xz",
        b"zst" => "application/zstd",
        b"7z" => "application/x-7z-compressed",
        b"tar" => "application/x-tar",
        b"parquet" => "application/vnd.apache.parquet",
        b"doc" => "application/msword",
        b"docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        b"xls" => "application/vnd.ms-excel",
        b"xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        b"ppt" => "application/vnd.ms-powerpoint",
        b"pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        b"odt" => "application/vnd.oasis.opendocument.text",
        b"ods" => "application/vnd.oasis.opendocument.spreadsheet",
        b"odp" => "application/vnd.oasis.opendocument.presentation",
        b"rtf" => "application/rtf",
        b"epub" => "application/epub+zip",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"avif" => "image/avif",
        b"bmp" => "image/bmp",
        b"tif" | b"tiff" => "image/tiff",
        b"svg" => "image/svg+xml",
        b"ico" => "image/vnd.microsoft.icon",
        b"heic" => "image/heic",
        b"mp3" => "audio/mpeg",
        b"m4a" => "audio/mp4",
        b"ogg" | b"oga" | b"opus" => "audio/ogg",
        b"flac" => "audio/flac",
        b"wav" => "audio/wav",
        b"mp4" | b"m4v" => "video/mp4",
        b"webm" => "video/webm",
        b"mkv" => "video/matroska",
        b"mov" => "video/quicktime",
        b"avi" => "video/x-msvideo",
        b"mpg" | b"mpeg" => "video/mpeg",
        b"ttf" => "font/ttf",
        b"otf" => "font/otf",
        b"woff" => "font/woff",
        b"woff2" => "font/woff2",
        _ => UNKNOWN,
    }
}

const UNKNOWN: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_extension_counts_in_any_case() {
        assert_eq!(of("a.JPEG"), "image/jpeg");
        assert_eq!(of("a.tar.gz"), "application/gzip");
        for plain in ["png", ".png", "a.", "", "a.ünï", "a.averylongextension"] {
            assert_eq!(of(plain), UNKNOWN, "{plain}");
        }
    }
}
