//! One page of HTML that needs nothing else: its style is inside, and it names no other file.

/// Text as it stands in HTML.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page that is being made.
#[derive(Debug)]
pub(super) struct Page {
    title: String,
    body: String,
}

const STYLE: &str = "
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: #fff; color: #1c1c1c;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
p, li { max-width: 46rem; } .answer { border-left: 4px solid #0072b2; padding: .1rem 1rem; background: #f3f8fc; }
.scroll { overflow-x: auto; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e2e2e2; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; min-width: 4rem; border-bottom: 2px solid #999; }
.text { text-align: left; } td.text { white-space: normal; min-width: 7rem; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .3rem 0; padding: 0; font-size: .85rem; }
.legend span { display: inline-block; width: 1.4rem; height: .5rem; margin-right: .4rem; border-radius: 2px; }
.note { color: #555; font-size: .9rem; }
@media (max-width: 40rem) { body { padding: .6rem; } h1 { font-size: 1.35rem; } }
";

impl Page {
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), body: format!("<h1>{}</h1>\n", escape(title)) }
    }

    pub(super) fn heading(&mut self, text: &str) -> &mut Self {
        self.raw(&format!("<h2>{}</h2>\n", escape(text)))
    }

    pub(super) fn paragraph(&mut self, text: &str) -> &mut Self {
        self.raw(&format!("<p>{}</p>\n", escape(text)))
    }

    pub(super) fn note(&mut self, text: &str) -> &mut Self {
        self.raw(&format!("<p class=\"note\">{}</p>\n", escape(text)))
    }

    /// The answer, set apart.
    pub(super) fn answer(&mut self, sentences: &[String]) -> &mut Self {
        let items: String = sentences.iter().map(|sentence| format!("<p>{}</p>\n", escape(sentence))).collect();
        self.raw(&format!("<div class=\"answer\">\n{items}</div>\n"))
    }

    pub(super) fn list(&mut self, items: &[String]) -> &mut Self {
        let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
        self.raw(&format!("<ul>\n{items}</ul>\n"))
    }

    /// Adds what is HTML already.
    pub(super) fn raw(&mut self, html: &str) -> &mut Self {
        self.body.push_str(html);
        self
    }

    pub(super) fn finish(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
            escape(&self.title),
            self.body
        )
    }
}

/// Tests of whole pages.
#[cfg(test)]
pub(super) mod check {
    /// The elements that have no end.
    const VOID: [&str; 2] = ["meta", "br"];

    /// Asserts that every element is ended in its turn, and that the page names nothing outside itself.
    pub(in crate::report) fn assert_whole_and_alone(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
            if tag.starts_with('!') || tag.ends_with('/') || VOID.contains(&name) {
                continue;
            }
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "an element ends that is not the last one open");
            } else {
                open.push(name);
            }
        }
        assert_eq!(open, Vec::<&str>::new(), "elements that are not ended");
        let outside = ["href", "src=", "@import", "url(", "<script", "<link", "<img", "<iframe"];
        for reference in outside {
            assert!(!page.contains(reference), "the page refers to something outside: {reference}");
        }
        // The name of the SVG name space is the one address that a page may hold.
        let addresses = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("://"), "the page holds an address");
    }

    #[test]
    #[should_panic(expected = "not the last one open")]
    fn a_page_with_crossed_elements_is_found() {
        assert_whole_and_alone("<p><b></p></b>");
    }

    #[test]
    #[should_panic(expected = "something outside")]
    fn a_page_with_a_picture_is_found() {
        assert_whole_and_alone("<p><img src=\"a.png\"/></p>");
    }
}
