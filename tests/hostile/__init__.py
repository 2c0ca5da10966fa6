"""Files and folders made to do harm: each must end as one line or a skipped row."""
