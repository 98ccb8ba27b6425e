"""An API's requests and answers in the words of another."""
