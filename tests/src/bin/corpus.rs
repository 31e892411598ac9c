//! Takes the corpora of the fuzz targets apart, for the fuzzer, and puts them together again.
//!
//! `corpus seeds|unpack|pack TARGET FOLDER`

use std::{env, fs, path::Path};

use anyhow::bail;
use spop_tests::corpus;

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [verb, target, folder] = &args[..] else { bail!("corpus seeds|unpack|pack TARGET FOLDER") };
    let folder = Path::new(folder);
    let inputs = match verb.as_str() {
        "seeds" => corpus::seeds(target)?,
        "unpack" => corpus::read(target)?,
        "pack" => {
            let files = fs::read_dir(folder)?.map(|entry| Ok(fs::read(entry?.path())?));
            return corpus::write(target, files.collect::<anyhow::Result<_>>()?);
        }
        _ => bail!("no such verb: {verb}"),
    };
    fs::create_dir_all(folder)?;
    for (number, input) in inputs.iter().enumerate().filter(|(_, input)| input.len() <= corpus::MAX_LEN) {
        fs::write(folder.join(format!("{verb}-{number:05}")), input)?;
    }
    Ok(())
}
