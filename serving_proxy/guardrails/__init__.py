"""What is looked for in the texts of requests and answers: words and personal data, to block or to mask."""
