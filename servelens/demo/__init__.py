"""``servelens demo``: the whole loop on a real model, from the first answer to the export."""
