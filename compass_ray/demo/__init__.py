"""The demo corpus: 1,600 sentences in 12 languages, written for this project, with a dozen dirty rows."""
